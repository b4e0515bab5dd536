"""Overlap, calibration, coverage, novelty, exposure, popularity and drift on cases that can be worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import block_of, catalog_of

from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import examples
from peso_cli.reports.analysis import measures
from peso_cli.reports.analysis.facts import facts_of, user_drift

HEAD, MIDDLE, TAIL, NEW = range(4)


def vector(*values):
    return np.array(values, dtype=np.float64)


@pytest.mark.parametrize(
    ("taken", "classes"),
    [
        # Of 9 events the first item has 3, the next three 3 together, and so the last three.
        ([3, 1, 1, 1, 1, 1, 1, 0], [HEAD, MIDDLE, MIDDLE, MIDDLE, MIDDLE, MIDDLE, MIDDLE, NEW]),
        ([3, 3, 3], [HEAD, HEAD, HEAD]),
        ([1, 2, 3, 0, 6], [TAIL, TAIL, MIDDLE, NEW, HEAD]),
        ([9, 1], [HEAD, TAIL]),
        ([0, 0], [NEW, NEW]),
    ],
)
def test_popular_items_are_the_head_and_equal_ones_share_a_class(taken, classes):
    assert measures.popularity_classes(np.array(taken)).tolist() == classes


def test_overlap_of_whole_hits_is_that_of_sets():
    found = measures.overlap(vector(1, 1, 0, 0, 1), vector(1, 0, 1, 0, 0))
    assert found == pytest.approx({"first": 0.4, "second": 0.2, "both": 0.2, "union": 0.8, "jaccard": 0.25})


def test_overlap_of_hits_in_part_adds_up_to_each_recall():
    one, other = vector(0.5, 1, 0), vector(1, 0.25, 0)
    found = measures.overlap(one, other)
    assert found["both"] == pytest.approx(0.75 / 3)
    assert found["first"] + found["both"] == pytest.approx(one.mean())
    assert found["second"] + found["both"] == pytest.approx(other.mean())
    assert found["first"] + found["second"] + found["both"] == pytest.approx(found["union"])


def test_overlap_where_nobody_is_served_has_no_index():
    found = measures.overlap(vector(0, 0), vector(0, 0))
    assert math.isnan(found.pop("jaccard"))
    assert set(found.values()) == {0}


def test_calibration_error_by_hand():
    said, hit = vector(0.05, 0.15, 0.95, 1.0), np.array([True, False, True, True])
    bins = measures.equal_widths(said, 10)
    assert bins.tolist() == [0, 1, 9, 9]
    # |0.05 - 1| + |0.15 - 0| + |1.95 - 2|, by 4 users.
    assert measures.calibration_error(said, hit, bins) == pytest.approx((0.95 + 0.15 + 0.05) / 4)
    halves = measures.equal_counts(said[::-1], 2)
    assert halves.tolist() == [1, 1, 0, 0]
    assert measures.calibration_error(said[::-1], hit[::-1], halves) == pytest.approx((0.8 + 0.05) / 4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 12))
def test_bins_hold_everybody_and_equally_many(said, bins):
    said = np.array(said)
    counts = np.bincount(measures.equal_counts(said, bins), minlength=bins)
    assert counts.sum() == len(said)
    assert counts.max() - counts.min() <= 1
    assert measures.equal_widths(said, bins).min() >= 0
    assert measures.equal_widths(said, bins).max() < bins


@pytest.mark.parametrize(
    ("values", "expected"),
    [((1, 1, 1, 1), 0), ((0, 0, 0, 4), 0.75), ((1, 3), 0.25), ((5,), 0), ((2, 0, 1), 4 / 9)],
)
def test_gini_by_hand(values, expected):
    assert measures.gini(vector(*values)) == pytest.approx(expected)


def test_gini_of_nothing_is_no_number():
    assert math.isnan(measures.gini(vector(0, 0)))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_gini_is_half_the_relative_mean_difference(values):
    x = vector(*values)
    assert measures.gini(x) == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))


def test_items_that_share_a_semantic_id_share_its_places():
    catalog = catalog_of([[0, 0], [0, 0], [0, 1], [1, 0]])
    listed = np.array([[0, 2], [0, -1]])
    assert measures.exposure(listed, catalog, shared=True).tolist() == [1, 1, 1, 0]
    assert measures.exposure(listed, catalog, shared=False).tolist() == [2, 0, 1, 0]


def test_only_visible_items_are_looked_at():
    catalog = catalog_of([[0, 0], [0, 0], [0, 1], [1, 0]]).seen(np.array([True, False, True, True]))
    assert measures.exposure(np.array([[0, 2]]), catalog, shared=True).tolist() == [1, 1, 0]
    assert measures.exposure(np.array([[0, 2]]), catalog, shared=False).tolist() == [1, 1, 0]


def test_novelty_by_hand():
    # Shares with one event more each: 4, 2, 1, 1 of 8.
    assert measures.novelty(np.array([[0, 1], [2, -1]]), np.array([3, 1, 0, 0])) == pytest.approx((1 + 2 + 3) / 3)
    assert math.isnan(measures.novelty(np.array([[-1]]), np.array([3])))


CATALOG = catalog_of([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]])


@pytest.mark.parametrize(
    ("previous", "current", "expected"),
    [
        ([0, 1], [0, 1, 4], 0),  # both have first code 0 alone; the target isn't counted
        ([0], [2, 3, 0], 1),
        ([0, 2], [0, 1, 4], 0.5),
        ([0, 1, 2], [2, 0, 0], 1 / 6),
        ([], [0, 1, 2], math.nan),
    ],
)
def test_drift_is_the_distance_of_first_codes_of_the_stage_from_those_before(previous, current, expected):
    block = block_of({"short": ([4], [4, 4]), "u": (previous, current), "other": ([4], [4, 4, 4])})
    found = user_drift(examples(block, "test", 5), CATALOG)
    assert found.tolist() == pytest.approx([expected, 0], nan_ok=True)


def test_facts_of_a_stage():
    blocks = {
        1: block_of({"u": ([], [0, 1, 2, 0])}, 1),
        2: block_of({"u": ([0, 1, 2, 0], [3, 0, 1]), "v": ([], [4, 4, 4, 4]), "few": ([], [0, 0])}, 2),
    }
    facts = facts_of(Dataset("toy", CATALOG, 2, blocks.__getitem__, lambda _: True), 2)
    assert facts.users.tolist() == ["u", "v"]
    assert facts.targets.tolist() == [1, 4]
    assert facts.activity.tolist() == [6, 3]
    # Training targets: 0 and 1 of stage 1, 3 and twice 4 of stage 2.
    assert facts.taken.tolist() == [1, 1, 0, 1, 2]
    assert facts.ages.tolist() == [1, 0]
