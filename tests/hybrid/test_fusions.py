import numpy as np
import pytest
from hybrid.pools import ENDLESS, FIRST, SECOND, small_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.hybrid.fusions import Calibration, Fusion, calibrate, pool_of, standardised

CALIBRATIONS = (Calibration(0.0, 1.0, 0.0), Calibration(-5.0, 1.0, 0.0))


def test_a_pool_holds_each_candidate_once_with_its_rank_and_score_in_either_list():
    pool = small_pool()
    assert pool.rows.tolist() == [[3, 1, -1, 2]]
    assert pool.ranks.tolist() == [[[1, 2, 0, 0]], [[0, 1, 0, 2]]]
    assert pool.scores.tolist() == [[[-1, -2, ENDLESS, ENDLESS]], [[ENDLESS, 5, ENDLESS, 4]]]


def test_what_is_none_in_a_list_is_no_candidate():
    pool = pool_of((np.array([[-1, 4]]), np.array([[5, -1]])), (np.zeros((1, 2)), np.zeros((1, 2))))
    assert pool.rows.tolist() == [[-1, 4, 5, -1]]
    assert pool.ranks.tolist() == [[[0, 2, 0, 0]], [[0, 0, 1, 0]]]
    best, scores = Fusion("reciprocal_rank", 0.5, 60.0).best(pool, 4)
    assert best.tolist() == [[5, 4, -1, -1]]
    assert scores[0, 2:].tolist() == [ENDLESS, ENDLESS]


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        # 3: .5 / 2; 1: .5 / 3 + .5 / 2; 2: .5 / 3
        (Fusion("reciprocal_rank", 0.5, 1.0), {1: 0.416667, 3: 0.25, 2: 0.166667}),
        # 3: .75 s(-1); 1: .75 s(-2) + .25 s(0); 2: .25 s(-1)
        (Fusion("calibrated", 0.75, 60.0, CALIBRATIONS), {1: 0.214402, 3: 0.201706, 2: 0.067235}),
        # first (-1, -2, -3) and second (3, 5, 3), the lowest in place of none, over their standard deviations
        (Fusion("rescored", 0.6, 60.0), {1: 0.565685, 3: 0.452004, 2: -1.017690}),
        (Fusion("rescored", 1.0, 60.0), {3: 1.224745, 1: 0.0, 2: -1.224745}),
        (Fusion("alone", 1.0, 60.0), {3: 1 / 61, 1: 1 / 62, 2: 0}),
        (Fusion("alone", 0.0, 60.0), {1: 1 / 61, 2: 1 / 62, 3: 0}),
    ],
)
def test_fused_by_hand(fusion, expected):
    best, scores = fusion.best(small_pool(), 4)
    assert best.tolist() == [[*expected, -1]]
    assert scores[0].tolist() == pytest.approx([*expected.values(), ENDLESS], abs=1e-6)
    assert fusion.best(small_pool(), 2)[0].tolist() == [[*expected][:2]]


def test_equal_candidates_stand_in_the_pools_order():
    pool = pool_of((FIRST, np.array([[7, 8]])), (np.zeros((1, 2)), np.zeros((1, 2))))
    assert Fusion("reciprocal_rank", 0.5, 60.0).best(pool, 4)[0].tolist() == [[3, 7, 1, 8]]


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(8)), st.permutations(range(8)), st.integers(1, 6))
def test_a_weight_of_one_or_zero_leaves_a_part_alone(one, other, length):
    lists = np.array([one[:length]]), np.array([other[:length]])
    pool = pool_of(lists, (np.zeros((1, length)), np.zeros((1, length))))
    for weight, alone in zip((1.0, 0.0), lists, strict=True):
        for kind in ("alone", "reciprocal_rank"):
            assert Fusion(kind, weight, 60.0).best(pool, length)[0].tolist() == alone.tolist()


def test_standardised_scores_are_of_the_real_candidates_alone():
    real = np.array([[True, True, False], [True, True, True], [True, False, False], [False] * 3])
    scores = np.array([[1.0, 3.0, 99.0], [2.0, ENDLESS, 6.0], [ENDLESS] * 3, [ENDLESS] * 3])
    found = standardised(scores, real)
    assert found[0].tolist() == [-1, 1, 0]
    assert found[1].tolist() == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5])
    assert found[2:].tolist() == [[0, 0, 0]] * 2


def test_a_score_that_is_no_number_stays_none():
    assert np.isnan(standardised(np.array([[1.0, np.nan]]), np.ones((1, 2), bool))).all()


def test_calibrated_probabilities_add_up_to_the_hits_and_rise_with_the_score():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.normal(size=(500, 8)), axis=1)[:, ::-1]
    ranks = np.tile(np.arange(1, 9), (500, 1))
    ranks[:, 6:] = 0
    hits = rng.random(scores.shape) < 1 / (1 + np.exp(3 - scores))
    hits[:, 6:] = True  # what isn't listed has no say
    fitted = calibrate(np.where(ranks > 0, scores, ENDLESS), ranks, hits)
    found = fitted(np.where(ranks > 0, scores, ENDLESS), ranks)
    assert found.sum() == pytest.approx(hits[:, :6].sum(), rel=1e-3)
    assert (found[:, 6:] == 0).all()
    assert fitted.of_score == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("hit", [False, True])
def test_where_nothing_can_be_learnt_probabilities_are_in_order_of_the_ranks(hit):
    ranks = np.array([[1, 2, 3]])
    fitted = calibrate(np.array([[3.0, 1.0, 2.0]]), ranks, np.full((1, 3), hit))
    assert fitted(np.array([[3.0, 1.0, 2.0]]), ranks)[0].tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 4])


def test_lists_that_agree_are_the_fused_list():
    pool = pool_of((SECOND, SECOND), (np.zeros((1, 2)), np.zeros((1, 2))))
    assert pool.rows.tolist() == [[1, 2, -1, -1]]
    assert Fusion("reciprocal_rank", 0.3, 60.0).best(pool, 2)[0].tolist() == SECOND.tolist()
