import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import block_of, write_released

from peso_cli.config.schema import ReleasedDataset
from peso_cli.data.examples import examples
from peso_cli.data.open import open_dataset
from peso_cli.data.sampling import sample_users
from peso_cli.errors import InputError

USERS = {f"u{n}": (list(range(n % 4)), list(range(1 + n % 6))) for n in range(60)}
ABLE = [user for user, (_, current) in USERS.items() if len(current) >= 3]


def events_of(block):
    """Each user's previous and current items."""
    pieces = zip(block.users, block.starts[:-1], block.current, block.starts[1:], strict=True)
    return {u: (block.events[s:c].tolist(), block.events[c:e].tolist()) for u, s, c, e in pieces}


@given(most=st.integers(1, 70), seed=st.integers(0, 5))
def test_a_sample_keeps_users_who_yield_examples_with_all_their_events(most, seed):
    block = sample_users(block_of(USERS), most, seed)
    assert len(block.users) == min(most, len(ABLE))
    assert list(block.users) == [user for user in ABLE if user in block.users]
    assert events_of(block) == {user: USERS[user] for user in block.users}
    assert len(examples(block, "test", 20)) == len(block.users)


@given(seed=st.integers(0, 5), data=st.data())
def test_who_is_in_at_one_stage_comes_first_at_every_other(seed, data):
    present = data.draw(st.lists(st.sampled_from(ABLE), min_size=10, unique=True))
    here = sample_users(block_of(USERS), 8, seed).users
    there = sample_users(block_of({user: USERS[user] for user in present}), 8, seed).users
    # Where all of both stages are there, a stage of fewer users takes everyone whom the larger one takes.
    assert set(here) & set(present) <= set(there)


def test_seeds_give_other_samples_and_equal_ones_the_same():
    one, again, other = (sample_users(block_of(USERS), 10, seed) for seed in (1, 1, 2))
    assert one.digest == again.digest != other.digest
    assert one.users != other.users


def test_every_user_is_as_likely_as_another():
    counts = np.zeros(len(ABLE))
    for seed in range(300):
        taken = sample_users(block_of(USERS), 10, seed).users
        counts += [user in taken for user in ABLE]
    expected = 300 * 10 / len(ABLE)
    # Four standard deviations of a binomial count.
    assert np.abs(counts - expected).max() < 4 * np.sqrt(expected)


def test_a_stage_without_anybody_to_take_is_named():
    with pytest.raises(InputError) as caught:
        sample_users(block_of({"u": ([1, 2, 3], [4, 5])}, stage=3), 5, 1)
    assert str(caught.value) == "dataset.sample_users=5: no user of stage 3 has 3 events"


def test_a_released_dataset_is_sampled_stage_by_stage_as_it_is_read(tmp_path):
    index = {f"i{n}": [f"<a_{n}>", "<b_0>"] for n in range(6)}
    users = {f"u{n}": {"previous_block": [], "current_block": ["i1", "i2", "i3"]} for n in range(20)}
    fewer = {user: users[user] for user in list(users)[:15]}
    folder = write_released(tmp_path, index, {0: users, 1: fewer, 2: json.dumps(users)[:50]})
    config = ReleasedDataset("released", "toy", str(folder))
    whole, some = open_dataset(config), open_dataset(replace(config, sample_users=4))
    assert (some.name, some.stages, some.has(3), some.has(4)) == ("toy", 3, True, False)
    assert len(whole.block(1).users) == 20
    first, second = some.block(1), some.block(2)
    assert len(first.users) == len(second.users) == 4
    assert set(first.users) & set(fewer) <= set(second.users)
    assert first is some.block(1)
    assert first.digest != whole.block(1).digest
    with pytest.raises(InputError, match="not valid JSON"):
        some.block(3)
    with pytest.raises(InputError, match="toy has stages 1 to 3"):
        some.block(4)


def test_real_users_who_return_still_return(shared):
    config = ReleasedDataset("released", "games", str(shared / "data" / "amazon_games"), sample_users=300)
    dataset = open_dataset(config)
    third, fourth = dataset.block(3), dataset.block(4)
    known = set(open_dataset(replace(config, sample_users=None)).block(3).users)
    returning = known & set(fourth.users)
    # A sample of its own for each stage would keep about a third of them.
    assert len(returning & set(third.users)) > 0.6 * len(returning)
