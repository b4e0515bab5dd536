import json
import math
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import block_of, catalog_of

from peso_cli.data.blocks import Dataset, read_released
from peso_cli.data.drift import StageDrift, drift
from peso_cli.data.examples import examples
from peso_cli.data.statistics import stage_statistics


def dataset_of(*blocks, items=16):
    """A dataset from one dict a stage, user to (previous, current) catalog indices; None is a missing stage."""
    catalog = catalog_of(np.arange(items)[:, None])
    read = [None if users is None else block_of(users, stage) for stage, users in enumerate(blocks, start=1)]
    return Dataset("toy", catalog, len(blocks), lambda s: read[s - 1], lambda s: read[s - 1] is not None)


FIRST = {"ann": ([], [0, 1, 0, 2]), "bob": ([], [0, 1, 3]), "cy": ([], [2, 2])}
SECOND = {"ann": ([0, 1, 0, 2], [0, 4, 1]), "dee": ([], [4, 0, 2, 1])}
THIRD = {"ann": ([0, 1, 0, 2, 0, 4, 1], [4, 1, 5]), "bob": ([0, 1, 3], [0, 0, 5]), "eve": ([], [4])}


def bits(*shares):
    return -sum(share * math.log2(share) for share in shares if share)


def test_users_and_items_counted_by_hand():
    second, third = drift(dataset_of(FIRST, SECOND, THIRD))
    assert (second.stage, third.stage) == (2, 3)
    assert (second.new_users, second.returning_users, second.dormant_users) == (1, 1, 0)
    assert (third.new_users, third.returning_users, third.dormant_users) == (1, 1, 1)
    assert (second.new_items, second.new_item_share) == (1, 2 / 7)
    assert (third.new_items, third.new_item_share) == (1, 2 / 7)
    assert (second.user_overlap, third.user_overlap) == (1 / 4, 1 / 4)
    assert (second.item_overlap, third.item_overlap) == (3 / 5, 3 / 5)
    assert (second.seen_targets, third.seen_targets) == (1.0, 0.0)


def test_popularity_shift_by_hand():
    (row,) = drift(dataset_of({"u": ([], [0, 0, 0, 1])}, {"u": ([0, 0, 0, 1], [0, 2])}))
    middle = (5 / 8, 1 / 8, 1 / 4)
    assert row.popularity_shift == pytest.approx(bits(*middle) - (bits(3 / 4, 1 / 4) + 1) / 2, rel=1e-12)
    assert row.shared_shift == 0.0


def test_popularity_shift_over_shared_items_is_rescaled():
    (row,) = drift(dataset_of({"u": ([], [0, 0, 0, 1, 2, 2])}, {"u": ([], [0, 1, 3])}))
    expected = bits(5 / 8, 3 / 8) - (bits(3 / 4, 1 / 4) + 1) / 2
    assert row.shared_shift == pytest.approx(expected, rel=1e-12)


def test_stages_alike_have_no_shift_and_stages_apart_have_all():
    same, apart = drift(dataset_of({"u": ([], [0, 1, 1])}, {"u": ([], [1, 0, 1])}, {"v": ([], [2, 3, 4])}))
    assert (same.popularity_shift, same.shared_shift, same.item_overlap, same.user_overlap) == (0.0, 0.0, 1.0, 1.0)
    assert (apart.popularity_shift, apart.item_overlap, apart.user_overlap) == (1.0, 0.0, 0.0)
    assert apart.shared_shift is None
    assert "-0.0" not in repr(same) + repr(apart)


def test_predictions_by_hand():
    # Training targets of the first stage: ann 0, 1 (0 follows nothing, 1 follows 0), bob 0; cy yields no example.
    # So 0 has popularity 2, item 1 has 1; the one transition is 0 to 1.
    # Test targets of the second stage: ann 1 after 4, dee 1 after 2; so item 1 is second in both lists.
    second, third = drift(dataset_of(FIRST, SECOND, THIRD))
    second_rank = {"recall@10": 1.0, "ndcg@10": pytest.approx(1 / math.log2(3))}
    nothing = {"recall@10": 0.0, "ndcg@10": 0.0}
    assert second.popularity == second.transitions == second_rank
    # The second stage's own: ann 0, dee 4, 0. Nobody trains on item 1.
    assert second.popularity_own == second.transitions_own == nothing
    # Item 5 comes up last only, and is the target of all who have examples.
    assert third.popularity == third.transitions == third.popularity_own == third.transitions_own == nothing


def test_transitions_come_before_popularity_and_rank_among_themselves():
    # Each user trains on `[a, b]` at the head and leaves two items as validation and test.
    def walks(*pairs):
        return {f"u{n}": ([], [a, b, 15, 15]) for n, (a, b) in enumerate(pairs)}

    first = walks((0, 1), (0, 1), (0, 2), (3, 4), (3, 4), (3, 4), (5, 6))
    # Popularity: 0 3 4 (three each), 1 (two), 2 5 6 (one each). After 0 come 1, 2, then 3, 4 and the rest.
    targets = {1: 1, 2: 2, 3: 4, 4: 5, 5: 6, 6: 7}
    for target, rank in targets.items():
        (row,) = drift(dataset_of(first, {"u": ([], [9, 0, target])}))
        assert row.transitions == {"recall@10": 1.0, "ndcg@10": pytest.approx(1 / math.log2(rank + 1))}
    # Item 0 itself is no follower: it comes third.
    (row,) = drift(dataset_of(first, {"u": ([], [9, 0, 0])}))
    assert row.transitions["ndcg@10"] == pytest.approx(1 / math.log2(4))


def test_an_item_that_was_never_trained_on_is_on_no_list():
    (row,) = drift(dataset_of({"u": ([], [0, 1, 2])}, {"u": ([0, 1, 2], [0, 0, 2])}))
    assert row.popularity == row.transitions == {"recall@10": 0.0, "ndcg@10": 0.0}


def test_a_missing_stage_leaves_unknown_what_it_takes_to_tell():
    missing, third = drift(dataset_of(FIRST, None, THIRD))
    assert missing == StageDrift(2)
    known = {name for name, value in asdict(third).items() if value is not None}
    assert known == {"stage", "new_users", "popularity_own", "transitions_own"}
    _, third = drift(dataset_of(None, SECOND, THIRD))
    unknown = {name for name, value in asdict(third).items() if value is None}
    assert unknown == {"new_items", "new_item_share", "seen_targets"}


def test_one_stage_has_nothing_to_compare():
    assert drift(dataset_of(FIRST)) == []


def test_a_stage_whose_users_yield_no_example_has_no_figures_of_prediction():
    (row,) = drift(dataset_of(FIRST, {"ann": ([0], [1, 2])}))
    assert (row.popularity, row.transitions, row.popularity_own, row.transitions_own) == (None,) * 4
    assert row.seen_targets is None
    assert row.item_overlap == 1 / 2


def plain_lists(block, items, last):
    """The lists by popularity and by transitions from `last`, made user by user and sorted whole."""
    train = examples(block, "train", 1)
    popularity = Counter(train.target_items.tolist())
    follows = Counter()
    for row, target in enumerate(train.target_items.tolist()):
        for before in train.history(row).tolist():
            follows[before, target] += 1
    counted = [item for item in range(items) if popularity[item]]
    by_popularity = sorted(counted, key=lambda item: (-popularity[item], item))
    return by_popularity, sorted(by_popularity, key=lambda item: -follows[last, item])


def plain_figures(before, now, items, which):
    test = examples(now, "test", 1)
    ranks = []
    for row, target in enumerate(test.target_items.tolist()):
        ranked = plain_lists(before, items, int(test.history(row)[0]))[which][:10]
        ranks.append(ranked.index(target) + 1 if target in ranked else 0)
    if not ranks:
        return None
    gains = [1 / math.log2(rank + 1) if rank else 0.0 for rank in ranks]
    recall = sum(rank > 0 for rank in ranks) / len(ranks)
    return {"recall@10": pytest.approx(recall), "ndcg@10": pytest.approx(sum(gains) / len(gains))}


events = st.lists(st.integers(0, 13), max_size=4)
worlds = st.dictionaries(
    st.sampled_from("uvwxyz"), st.tuples(events, st.lists(st.integers(0, 13), min_size=1)), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(worlds, worlds)
def test_predictions_equal_lists_that_are_sorted_whole(first, second):
    dataset = dataset_of(first, second)
    (row,) = drift(dataset)
    before, now = dataset.block(1), dataset.block(2)
    assert row.popularity == plain_figures(before, now, 16, 0)
    assert row.transitions == plain_figures(before, now, 16, 1)
    assert row.popularity_own == plain_figures(now, now, 16, 0)
    assert row.transitions_own == plain_figures(now, now, 16, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(worlds, min_size=2, max_size=4))
def test_what_always_holds(blocks):
    dataset = dataset_of(*blocks)
    rows = drift(dataset)
    for row, users, statistics in zip(rows, blocks[1:], stage_statistics(dataset)[1:], strict=True):
        assert row.new_users + row.returning_users + row.dormant_users == len(users)
        assert (row.new_users, row.new_items) == (statistics.new_users, statistics.new_items)
        assert 0 <= row.popularity_shift <= 1
        assert 0 <= (row.shared_shift or 0) <= 1
        assert (row.item_overlap == 0) == (row.shared_shift is None)
    text = json.dumps([asdict(row) for row in rows], allow_nan=False)
    assert "-0.0" not in text


def test_real_stages(shared):
    dataset = read_released(shared / "data" / "amazon_games", "games")
    rows, statistics = drift(dataset), stage_statistics(dataset)[1:]
    assert [(row.new_users, row.new_items) for row in rows] == [(s.new_users, s.new_items) for s in statistics]
    assert [row.stage for row in rows] == [2, 3, 4, 5]
    # As the published stages are known: few return, and each stage brings many new items.
    assert all(row.user_overlap < 0.1 and row.new_item_share > 0.3 for row in rows)
    json.dumps([asdict(row) for row in rows], allow_nan=False)


def test_a_world_without_its_first_stage_knows_what_it_can(shared):
    second, *later = drift(read_released(shared / "data" / "amazon_instruments", "instruments"))
    assert (second.popularity, second.user_overlap, second.new_items) == (None, None, None)
    assert second.popularity_own["recall@10"] > 0
    assert all(row.new_items is None and row.popularity is not None for row in later)
