import numpy as np
import pytest
import torch
from encoders import Lines, items_of

from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids.embeddings.collaborative import Collaborative
from peso_cli.semantic_ids.embeddings.taste import interactions_of
from peso_cli.semantic_ids.item_sources import trained_part

# Two crowds with a taste each: items 0 to 3 and 4 to 7; nobody had items 8 and 9.
CROWDS = [[first + (user + step) % 4 for step in range(3)] for first in (0, 4) for user in range(12) for _ in range(2)]
PART = Collaborative(width=8, layers=2, epochs=30, learning_rate=0.05, batch=32, l2=1e-4, initial_std=0.1, seed=1)


def embedded(part=PART, histories=CROWDS, display=None):
    return part.embed(items_of([""] * 10, histories), display or Lines())


def changed(**settings):
    return Collaborative(**{**{key: getattr(PART, key) for key in Collaborative.__dataclass_fields__}, **settings})


@pytest.mark.parametrize("layers", [0, 2])
def test_items_of_the_same_users_lie_together(layers):
    found = embedded(changed(layers=layers))
    unit = found[:8] / np.linalg.norm(found[:8], axis=1, keepdims=True)
    cosines = unit @ unit.T
    within = [cosines[i, j] for crowd in (range(4), range(4, 8)) for i in crowd for j in crowd if i != j]
    between = [cosines[i, j] for i in range(4) for j in range(4, 8)]
    assert min(within) > 0.2
    assert max(between) < 0


def test_items_that_nobody_had_are_zero_and_counted():
    lines = Lines()
    found = embedded(display=lines)
    assert (found.shape, found.dtype) == ((10, 8), np.float32)
    assert np.flatnonzero(~found.any(axis=1)).tolist() == [8, 9]
    assert lines.said == ["collaborative: 2 of 10 items have no events in stage 1; these get the zero vector"]
    assert lines.ticks[-1] == (30, 30)


def test_the_same_seed_gives_the_same_bytes_on_any_number_of_threads():
    before = torch.get_num_threads()
    first = embedded()
    try:
        torch.set_num_threads(before + 1)
        second = embedded()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert first.tobytes() == second.tobytes()
    assert embedded(changed(seed=2)).tobytes() != first.tobytes()


def test_each_event_is_a_pair_of_a_user_and_an_item():
    pairs = interactions_of([np.array([3, 1], np.int32), np.zeros(0, np.int32), np.array([1], np.int32)])
    assert (pairs.users.tolist(), pairs.items.tolist(), pairs.weights.tolist()) == ([0, 0, 2], [3, 1, 1], [1, 1, 1])


def test_without_events_there_is_nothing_to_learn():
    with pytest.raises(InputError, match=r"^embedding=collaborative: stage 1 has no events"):
        embedded(histories=[])


def test_a_loss_that_is_no_number_ends_it():
    with pytest.raises(RunError, match=r"lower embedding\.learning_rate"):
        embedded(changed(learning_rate=1e30))


@pytest.mark.parametrize(
    ("events", "left"), [([], []), ([5], [5]), ([5, 6], [5, 6]), ([5, 6, 7], [5]), ([1, 2, 3, 4], [1, 2])]
)
def test_what_users_are_asked_for_is_left_out(events, left):
    assert trained_part(np.array(events, dtype=np.int32)).tolist() == left
