from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from populations import populations, random_block
from worlds import block_of

from peso_cli.data.examples import examples
from peso_cli.training.sequences import one_by_one, shared

windows, splits = st.integers(1, 7), st.sampled_from(["train", "valid", "test"])


def answered(sequences):
    """All (history, target) pairs that sequences stand for, counted."""
    events, found = sequences.block.events, Counter()
    for start, first, last in zip(sequences.start, sequences.first, sequences.last, strict=True):
        for target in range(first, last + 1):
            found[tuple(events[start:target].tolist()), int(events[target])] += 1
    return found


def wanted(found):
    """The same from the examples themselves."""
    return Counter((tuple(found.history(i).tolist()), int(found.target_items[i])) for i in range(len(found)))


@settings(max_examples=80, deadline=None)
@given(populations, windows, splits)
def test_sequences_answer_just_the_examples(users, window, split):
    found = examples(block_of(users), split, window)
    assert answered(one_by_one(found)) == answered(shared(found)) == wanted(found)
    assert len(one_by_one(found)) == len(found)
    assert shared(found).targets.sum() == len(found)


@settings(max_examples=80, deadline=None)
@given(populations, st.data())
def test_sequences_answer_just_the_examples_that_were_taken(users, data):
    found = examples(block_of(users), "train", 5)
    kept = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    taken = found.take(np.flatnonzero(kept))
    assert answered(one_by_one(taken)) == answered(shared(taken)) == wanted(taken)


@settings(max_examples=80, deadline=None)
@given(populations, windows)
def test_a_history_is_read_once_for_all_its_targets(users, window):
    found = examples(block_of(users), "train", window)
    sequences = shared(found)
    assert len(set(sequences.start.tolist())) == len(sequences) == len(set(found.start.tolist()))
    assert (sequences.items <= window).all()
    assert (sequences.targets <= sequences.items + 1).all()


def test_sharing_makes_one_sequence_of_a_user_within_the_window():
    found = examples(block_of({"a": ([1, 2], [3, 4, 5, 6]), "b": ([], [7, 8, 9, 1])}), "train", 5)
    sequences = shared(found)
    assert sequences.items.tolist() == [3, 1]
    assert sequences.targets.tolist() == [2, 2]
    assert answered(sequences) == Counter([((1, 2), 3), ((1, 2, 3), 4), ((), 7), ((7,), 8)])


def test_a_history_that_slides_stays_alone():
    found = examples(block_of({"a": ([], [1, 2, 3, 4, 5, 6, 7, 8])}), "train", 3)
    sequences = shared(found)
    assert sequences.items.tolist() == [3, 3, 3]
    assert sequences.targets.tolist() == [4, 1, 1]


@pytest.mark.parametrize("make", [one_by_one, shared])
def test_nobody_gives_no_sequence(make):
    sequences = make(examples(block_of({"a": ([1, 2, 3], [4, 5])}), "train", 5))
    assert len(sequences) == len(sequences.items) == len(sequences.targets) == 0


def test_much_is_shared():
    found = examples(random_block(50, events=6), "train", 20)
    assert shared(found).items.sum() < 0.6 * one_by_one(found).items.sum()
