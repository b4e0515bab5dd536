import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import block_of

from peso_cli.data.blocks import read_released
from peso_cli.data.examples import examples, last_known

SPLITS = ("train", "valid", "test")

histories = st.lists(st.integers(0, 30), max_size=12)
populations = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.tuples(histories, histories), max_size=6)


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "examples.json").read_text())


@pytest.fixture(scope="module")
def games(shared):
    return read_released(shared / "data" / "amazon_games", "amazon_games")


def pairs(found):
    """(history, target) of every example, as catalog indices."""
    return [(found.history(i).tolist(), int(found.target_items[i])) for i in range(len(found))]


def named(catalog, found):
    return [{"history": [catalog.items[i] for i in history], "target": catalog.items[t]} for history, t in pairs(found)]


def by_the_contract(previous, current, split, window):
    """The examples of one user, written as the contract reads."""
    if len(current) < 3:
        return []
    full = previous + current
    places = {"train": range(len(previous), len(full) - 2), "valid": [len(full) - 2], "test": [len(full) - 1]}
    return [(full[max(0, i - window) : i], full[i]) for i in places[split]]


def test_real_users_yield_the_golden_examples(golden, games):
    assert len(golden["users"]) == 40
    for user in golden["users"]:
        block = games.block(user["block"] + 1)
        row = block.users.index(user["user"])
        for split in SPLITS:
            found = examples(block, split, golden["window"])
            assert named(games.catalog, found.take(np.flatnonzero(found.user == row))) == user[split], user["user"]


def test_made_up_users_of_few_events_yield_the_golden_examples(golden, games):
    position = games.catalog.position
    for user in golden["synthetic_users"]:
        lists = tuple([position[item] for item in user[key]] for key in ("previous_block", "current_block"))
        block = block_of({user["user"]: lists})
        for split in SPLITS:
            assert named(games.catalog, examples(block, split, golden["window"])) == user[split], user["user"]


def test_real_blocks_hold_the_golden_counts(golden, games):
    (counts,) = golden["block_counts"].values()
    for number, expected in counts.items():
        block = games.block(int(number) + 1)
        found = {split: examples(block, split, golden["window"]) for split in SPLITS}
        lengths = found["train"].history_lengths
        assert {
            "users": len(block.users),
            "interactions": int(block.current_lengths.sum()),
            "items": len(np.unique(block.current_events)),
            "users_without_previous": int((block.previous_lengths == 0).sum()),
            "users_below_three": int((block.current_lengths < 3).sum()),
            "train_examples": len(found["train"]),
            "valid_examples": len(found["valid"]),
            "test_examples": len(found["test"]),
            "train_examples_with_empty_history": int((lengths == 0).sum()),
            "train_examples_with_full_window": int((lengths == golden["window"]).sum()),
        } == expected


@settings(max_examples=60, deadline=None)
@given(populations, st.sampled_from(SPLITS), st.integers(1, 9))
def test_examples_are_those_of_the_contract(users, split, window):
    block = block_of(users)
    found = examples(block, split, window)
    expected = [by_the_contract(p, c, split, window) for p, c in users.values()]
    assert pairs(found) == [example for of_user in expected for example in of_user]
    assert found.user.tolist() == [row for row, of_user in enumerate(expected) for _ in of_user]


@settings(max_examples=60, deadline=None)
@given(populations, st.integers(1, 9))
def test_every_event_of_a_stage_is_a_target_once_or_its_user_has_too_few(users, window):
    block = block_of(users)
    targets = np.concatenate([examples(block, split, window).target for split in SPLITS])
    enough = np.repeat(block.current_lengths >= 3, np.diff(block.starts))
    of_this_stage = np.arange(len(block.events)) >= np.repeat(block.current, np.diff(block.starts))
    assert sorted(targets.tolist()) == np.flatnonzero(enough & of_this_stage).tolist()


@settings(max_examples=60, deadline=None)
@given(populations, st.integers(1, 9), st.data())
def test_taking_rows_takes_their_examples_in_that_order(users, window, data):
    found = examples(block_of(users), "train", window)
    rows = data.draw(st.lists(st.integers(0, len(found) - 1), max_size=8) if len(found) else st.just([]))
    taken = found.take(np.array(rows, dtype=np.int64))
    assert pairs(taken) == [pairs(found)[row] for row in rows]
    assert taken.user.tolist() == [found.user[row] for row in rows]
    assert [history.tolist() for history in taken.histories()] == [history for history, _ in pairs(taken)]
    assert taken.history_lengths.tolist() == [len(history) for history, _ in pairs(taken)]


@settings(max_examples=60, deadline=None)
@given(populations, st.integers(1, 9))
def test_what_comes_next_is_the_first_event_of_a_stage_by_those_before_it(users, window):
    found = examples(block_of(users), "next", window)
    asked = {user: (p, c) for user, (p, c) in users.items() if p and c}
    assert pairs(found) == [(previous[-window:], current[0]) for previous, current in asked.values()]
    assert [found.block.users[row] for row in found.user] == list(asked)


def test_what_comes_next_in_a_real_stage_is_unknown_to_the_stages_before(games):
    before, block = games.block(3), games.block(4)
    known = {user: before.events[before.starts[row] : before.starts[row + 1]] for row, user in enumerate(before.users)}
    found = examples(block, "next", 20)
    assert len(found) == int((block.previous_lengths > 0).sum()) < len(block.users)
    returning = [(row, user) for row, owner in enumerate(found.user) if (user := block.users[owner]) in known]
    assert returning
    for row, user in returning:
        assert found.history(row).tolist() == known[user][-20:].tolist()


def test_only_what_comes_next_is_asked_without_events_of_its_own_stage():
    assert [last_known(3, split) for split in SPLITS] == [3, 3, 3]
    assert last_known(3, "next") == 2


def test_a_block_without_users_yields_nothing():
    for split in (*SPLITS, "next"):
        assert len(examples(block_of({}), split, 20)) == 0
