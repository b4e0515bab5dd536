import json
from itertools import permutations, product
from math import factorial, log2, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.evaluation.metrics import (
    CUTOFFS,
    cutoffs,
    item_figures,
    mean_figures,
    ndcg_at_k,
    recall_at_k,
    relevance,
    sid_figures,
    sid_ranks,
)
from peso_cli.semantic_ids.catalog import Catalog

KEYS = ["recall@1", "recall@5", "recall@10", "ndcg@1", "ndcg@5", "ndcg@10"]


def catalog_of(sids):
    """A catalog whose item i carries row `sids[i]`; every row from 0 up to the largest must occur."""
    return Catalog(tuple(map(str, range(len(sids)))), np.array(sids, dtype=np.int32)[:, None], {})


def filled(ranked, width=10):
    """Rankings filled up to a length by sequences that no item carries."""
    return np.pad(ranked, ((0, 0), (0, width - ranked.shape[1])), constant_values=-1)


def answer(text):
    """The golden candidates hold prompts and blanks around the sequence; what is ranked are sequences."""
    return text.split("Response:")[-1].strip().replace(" ", "")


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "metrics.json").read_text())


def ranked_hits(case):
    shape = (len(case["targets"]), case["k"])
    candidates = np.array([answer(text) for text in case["predictions"]]).reshape(shape)
    return relevance(candidates, np.array(case["scores"]).reshape(shape), case["targets"], case.get("all_items"))


def test_the_golden_file_holds_the_expected_cases(golden):
    assert len(golden["cases"]) == 9
    assert golden["metrics"] == ["hit@1", "hit@5", "hit@10", "ndcg@5", "ndcg@10"]


def test_relevance_equals_the_golden_cases(golden):
    for case in golden["cases"]:
        np.testing.assert_array_equal(ranked_hits(case), case["relevance"], err_msg=case["name"])


def test_metrics_equal_the_golden_cases(golden):
    compute = {"hit": recall_at_k, "ndcg": ndcg_at_k}
    for case in golden["cases"]:
        hits = ranked_hits(case)
        for name in golden["metrics"]:
            kind, k = name.split("@")
            rows = compute[kind](hits, int(k))
            context = f"{case['name']} {name}"
            expected = [row[name] for row in case["metric_rows"]]
            np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-12, err_msg=context)
            assert rows.sum() == pytest.approx(case["metric_sums"][name], abs=1e-12), context
            assert rows.mean() == pytest.approx(case["metric_means"][name], abs=1e-12), context


def test_illegal_sequences_fall_behind_even_the_least_likely_legal_one():
    hits = relevance([["x", "y", "a"]], [[-1.0, -2.0, -5000.0]], ["a"], legal=["a", "b"])
    assert hits.tolist() == [[True, False, False]]
    assert relevance([["x", "y", "a"]], [[-1.0, -2.0, -5000.0]], ["y"], legal=["a"]).tolist() == [[False, False, True]]


@pytest.mark.parametrize("kind", ["uint8", "int64", "float32"])
def test_candidates_are_ranked_by_score_whatever_their_order_and_type(kind):
    scores = np.array([[1, 3, 2], [250, 0, 7]], dtype=kind)
    assert relevance([["a", "b", "c"]] * 2, scores, ["b", "a"]).tolist() == [[True, False, False]] * 2
    assert relevance([["a", "b", "c"]] * 2, scores, ["a", "b"]).tolist() == [[False, False, True]] * 2
    assert relevance([[5, 6, 7]] * 2, scores, [7, 7]).tolist() == [[False, True, False]] * 2


def test_equal_scores_keep_the_order_of_arrival():
    """Many of them: a sort that isn't stable leaves only short lists as they are."""
    candidates = np.tile(np.arange(200), (200, 1))
    hits = relevance(candidates, candidates % 2, np.arange(200))
    odd_first = [*range(1, 200, 2), *range(0, 200, 2)]
    assert hits.argmax(axis=1)[odd_first].tolist() == list(range(200))
    assert hits.sum() == 200


def test_a_candidate_that_arrives_twice_counts_twice():
    hits = relevance([["a", "b", "a"]], [[3.0, 2.0, 1.0]], ["a"])
    assert hits.tolist() == [[True, False, True]]
    assert ndcg_at_k(hits, 3).tolist() == [1.5]
    assert recall_at_k(hits, 3).tolist() == [1.0]
    assert recall_at_k(hits, 3).dtype == ndcg_at_k(hits, 3).dtype == np.float64


def test_sid_figures_of_known_ranks():
    figures = sid_figures(np.array([1, 3, 0, 10, 11]), 10)
    assert list(figures) == KEYS
    assert figures["recall@1"].tolist() == [1, 0, 0, 0, 0]
    assert figures["recall@5"].tolist() == [1, 1, 0, 0, 0]
    assert figures["recall@10"].tolist() == [1, 1, 0, 1, 0]
    assert figures["ndcg@5"].tolist() == [1, 0.5, 0, 0, 0]
    np.testing.assert_allclose(figures["ndcg@10"], [1, 0.5, 0, 1 / log2(11), 0], rtol=1e-15)


@pytest.mark.parametrize(
    ("top", "at"), [(1, (1,)), (4, (1, 4)), (5, (1, 5)), (7, (1, 5, 7)), (10, (1, 5, 10)), (20, (1, 5, 10, 20))]
)
def test_figures_are_those_of_the_cutoffs_within_the_list_and_of_the_list(top, at):
    names = [f"{kind}@{k}" for kind in ("recall", "ndcg") for k in at]
    assert cutoffs(top) == at
    ranks = np.array([1, 0, 3, 6, 12, top])
    by_sid = sid_figures(np.where(ranks <= top, ranks, 0), top)
    by_item = item_figures(filled(np.zeros((1, 1), np.int64), top), np.array([0]), catalog_of([0, 0, 1]))
    assert (list(by_sid), list(by_item)) == (names, names)
    for k in at:
        hits = (ranks > 0) & (ranks <= k)
        assert by_sid[f"recall@{k}"].tolist() == hits.tolist()
        assert by_sid[f"ndcg@{k}"] == pytest.approx(hits / np.log2(np.maximum(ranks, 1) + 1))
        assert by_item[f"recall@{k}"].tolist() == [min(k, 2) / 2]


def test_sid_ranks_are_one_based_and_zero_where_missed():
    ranked = np.array([[4, 2, 7], [4, 2, 7], [4, -1, -1], [4, -1, -1]])
    assert sid_ranks(ranked, np.array([7, 5, 4, 0])).tolist() == [3, 0, 1, 0]


def test_item_figures_of_a_shared_sid_worked_by_hand():
    # Items 0-1 carry SID 0, items 2-5 SID 1. SID 1's four items fill positions 3 to 6, three of them within 5.
    catalog = catalog_of([0, 0, 1, 1, 1, 1])
    figures = item_figures(filled(np.array([[0, 1]])), np.array([4]), catalog)
    assert list(figures) == KEYS
    assert [figures[f"recall@{k}"][0] for k in CUTOFFS] == [0, 3 / 4, 1]
    assert figures["ndcg@1"][0] == 0
    assert figures["ndcg@5"][0] == pytest.approx((1 / log2(4) + 1 / log2(5) + 1 / log2(6)) / 4)
    assert figures["ndcg@10"][0] == pytest.approx((1 / log2(4) + 1 / log2(5) + 1 / log2(6) + 1 / log2(7)) / 4)


def test_a_sequence_that_no_item_carries_keeps_its_place_in_the_list():
    figures = item_figures(np.array([[-1, 0], [-1, -1]]), np.array([0, 0]), catalog_of([0, 1]))
    assert figures["recall@1"].tolist() == [0, 0]
    assert figures["recall@2"].tolist() == [1, 0]
    assert figures["ndcg@2"].tolist() == [1 / log2(3), 0]


def test_a_group_larger_than_the_list_shares_its_positions():
    figures = item_figures(filled(np.array([[0]])), np.array([3]), catalog_of([0] * 40))
    assert [figures[f"recall@{k}"][0] for k in CUTOFFS] == [1 / 40, 5 / 40, 10 / 40]


@st.composite
def worlds(draw):
    """A catalog with few enough orders of its items to try them all, a ranking of some SIDs, and targets."""
    small = st.lists(st.integers(1, 5), min_size=1, max_size=7).filter(lambda s: prod(map(factorial, s)) <= 800)
    sizes = draw(small)
    catalog = catalog_of(draw(st.permutations([sid for sid, size in enumerate(sizes) for _ in range(size)])))
    depth = draw(st.integers(1, len(sizes)))
    targets = draw(st.lists(st.integers(0, len(catalog.items) - 1), min_size=1, max_size=3))
    orders = [draw(st.permutations(range(len(sizes))))[:depth] for _ in targets]
    return catalog, np.array(orders, dtype=np.int64), np.array(targets, dtype=np.int64)


def brute_force(catalog, ranked, target):
    """Average the plain metrics of one item list over all orders of the items inside every SID."""
    groups = [np.flatnonzero(catalog.sid_of == sid).tolist() for sid in ranked]
    lists = [sum(choice, ()) for choice in product(*(permutations(group) for group in groups))]
    totals = dict.fromkeys(KEYS, 0.0)
    for items in lists:
        rank = items.index(target) + 1 if target in items else 0
        for k in CUTOFFS:
            if 0 < rank <= k:
                totals[f"recall@{k}"] += 1 / len(lists)
                totals[f"ndcg@{k}"] += 1 / log2(rank + 1) / len(lists)
    return totals


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_item_figures_are_the_average_over_all_orders_of_items_that_share_a_sid(world):
    catalog, ranked, targets = world
    figures = item_figures(filled(ranked), targets, catalog)
    for row, target in enumerate(targets):
        expected = brute_force(catalog, ranked[row], target)
        assert {key: figures[key][row] for key in KEYS} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_figures_are_bounded_and_never_fall_with_k(world):
    catalog, ranked, targets = world
    for figures in (
        sid_figures(sid_ranks(ranked, catalog.sid_of[targets]), 10),
        item_figures(filled(ranked), targets, catalog),
    ):
        for kind in ("recall", "ndcg"):
            columns = np.array([figures[f"{kind}@{k}"] for k in CUTOFFS])
            assert columns.min() >= 0
            assert columns.max() <= 1
            assert (np.diff(columns, axis=0) >= -1e-12).all()
        for k in CUTOFFS:
            assert (figures[f"ndcg@{k}"] <= figures[f"recall@{k}"] + 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.randoms(use_true_random=False))
def test_without_collisions_both_kinds_agree(items, k, random):
    catalog = catalog_of(random.sample(range(items), items))
    ranked = np.array([random.sample(range(items), min(k, items)) for _ in range(5)])
    targets = np.array([random.randrange(items) for _ in range(5)])
    by_sid = sid_figures(sid_ranks(ranked, catalog.sid_of[targets]), ranked.shape[1])
    by_item = item_figures(ranked, targets, catalog)
    assert {key: column.tolist() for key, column in by_sid.items()} == {k: c.tolist() for k, c in by_item.items()}


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_the_figures_of_a_shorter_list_are_those_of_a_longer_one(world):
    catalog, ranked, targets = world
    sid, long = catalog.sid_of[targets], filled(ranked)
    assert sid_ranks(ranked, sid).tolist() == sid_ranks(long, sid).tolist()
    whole = item_figures(long, targets, catalog), sid_figures(sid_ranks(long, sid), 10)
    for width in (1, 5):
        cut = long[:, :width]
        parts = item_figures(cut, targets, catalog), sid_figures(sid_ranks(cut, sid), width)
        for short, all_figures in zip(parts, whole, strict=True):
            assert {k: c.tolist() for k, c in short.items()} == {k: all_figures[k].tolist() for k in short}


def test_means_over_all_and_over_chosen_users():
    figures = sid_figures(np.array([1, 3, 0, 2]), 10)
    everybody = mean_figures(figures)
    assert list(everybody) == ["users", *KEYS]
    assert everybody["users"] == 4
    assert everybody["recall@1"] == 0.25
    assert mean_figures(figures, np.array([False, True, True, False]))["ndcg@5"] == 0.25
    assert mean_figures(figures, np.array([0, 1]))["recall@5"] == 1.0
    assert {type(value) for value in everybody.values()} == {int, float}


def test_means_of_nobody_are_none_and_fit_into_json():
    nobody = mean_figures(sid_figures(np.array([1, 3]), 10), np.array([False, False]))
    assert nobody == {"users": 0} | dict.fromkeys(KEYS)
    assert mean_figures(sid_figures(np.zeros(0, np.int64), 10)) == nobody
    assert json.loads(json.dumps(nobody, allow_nan=False)) == nobody


def test_no_users_at_all_give_empty_figures():
    figures = item_figures(np.zeros((0, 10), np.int64), np.zeros(0, np.int64), catalog_of([0, 0, 1]))
    assert {len(column) for column in figures.values()} == {0}
