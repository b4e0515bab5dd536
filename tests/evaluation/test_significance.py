import itertools
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from worlds import block_of, catalog_of

from peso_cli.data.blocks import Dataset
from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.metrics import item_figures, sid_figures
from peso_cli.evaluation.pairing import UserFigures, paired, per_user
from peso_cli.evaluation.protocol import Scored, user_examples, write_predictions
from peso_cli.evaluation.significance import corrected, corrected_family, paired_bootstrap


def hits(users, share, rng):
    """Differences of two methods' hits: most users 0, some -1 or 1."""
    return rng.choice([-1.0, 0.0, 1.0], users, p=[0.1, 0.9 - share, share])


def distance_from(mean, figures):
    """The exact two-sided p-value from all equally likely resampled figures."""
    return float(np.mean(np.abs(np.asarray(figures) - mean) >= abs(mean) - 1e-9))


# --- the bootstrap against what is known ---


def test_for_many_users_interval_and_p_value_are_those_of_normal_theory():
    values = hits(4000, 0.115, np.random.default_rng(3))
    found = paired_bootstrap([values])
    error = values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean(), abs=1e-15)
    assert (found.users, found.seeds) == (4000, 1)
    assert [found.low, found.high] == pytest.approx(values.mean() + 1.96 * error * np.array([-1, 1]), abs=0.1 * error)
    # Means lie 1 / 4000 apart: the usual correction for continuity.
    expected = 2 * stats.norm.sf((abs(values.mean()) - 0.5 / 4000) / error)
    assert 0.05 < expected < 0.95
    assert found.p_value == pytest.approx(expected, abs=0.015)


def test_confidence_widens_the_interval_as_normal_theory_says():
    values = np.random.default_rng(4).normal(size=500)
    wide, narrow = (paired_bootstrap([values], confidence=level) for level in (0.99, 0.8))
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
    assert ratio == pytest.approx(stats.norm.ppf(0.995) / stats.norm.ppf(0.9), rel=0.06)


@pytest.mark.parametrize("values", [[1, 0, 1], [1, 0, 0], [0.1, 0.2, 0], [0.5, -0.2, 0.1, 0.3], [1, 1, -1, 1, 0]])
def test_for_few_users_the_p_value_is_that_of_all_resamples(values):
    exact = distance_from(np.mean(values), [np.mean(drawn) for drawn in itertools.product(values, repeat=len(values))])
    assert paired_bootstrap([values], resamples=20_000).p_value == pytest.approx(exact, abs=0.014)


def test_for_few_users_and_seeds_the_p_value_is_that_of_all_resamples_of_both():
    values = np.array([[1, 0, 0.5], [0.2, 0.4, 0], [0, 0.3, 0.9]])
    users = [list(drawn) for drawn in itertools.product(range(3), repeat=3)]
    seeds = [list(drawn) for drawn in itertools.product(range(3), repeat=2)]
    every = [values[np.ix_(s, u)].mean() for s in seeds for u in users]
    found = paired_bootstrap(values, resamples=20_000)
    assert found.p_value == pytest.approx(distance_from(values.mean(), every), abs=0.014)
    for end, level in ((found.low, 0.025), (found.high, 0.975)):
        assert np.quantile(every, level - 0.006) - 1e-9 <= end <= np.quantile(every, level + 0.006) + 1e-9


def test_p_values_are_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(11)
    p = [paired_bootstrap([rng.normal(size=60)], resamples=199, seed=run).p_value for run in range(500)]
    assert stats.kstest(p, "uniform").statistic < 1.63 / np.sqrt(len(p))  # the 1% point


def test_p_values_are_not_too_small_where_seeds_differ_and_the_truth_is_0():
    rng = np.random.default_rng(12)
    worlds = [rng.normal(size=60) + 0.15 * rng.normal(size=(5, 1)) + rng.normal(size=(5, 60)) for _ in range(200)]
    assert np.mean([paired_bootstrap(world, resamples=199).p_value <= 0.05 for world in worlds]) < 0.1


def test_a_real_effect_is_found_and_its_interval_covers_it():
    rng = np.random.default_rng(13)
    found = [paired_bootstrap([rng.normal(0.5, 1, 100)], resamples=399) for _ in range(60)]
    assert np.mean([c.p_value <= 0.05 for c in found]) > 0.95
    assert np.mean([c.low <= 0.5 <= c.high for c in found]) > 0.87


def test_the_p_value_is_never_0_and_1_where_nothing_differs():
    assert paired_bootstrap(np.ones((2, 50)), resamples=99).p_value == 1 / 100
    nothing = paired_bootstrap(np.zeros((2, 50)), resamples=99)
    assert (nothing.mean, nothing.low, nothing.high, nothing.p_value) == (0, 0, 0, 1)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.43, 1.0]), min_size=2, max_size=12), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_exchanging_the_two_methods_mirrors_the_comparison(values, seeds):
    table = np.stack([np.roll(values, shift) for shift in range(seeds)])
    one, other = (paired_bootstrap(sign * table, resamples=200) for sign in (1, -1))
    assert one.p_value == other.p_value
    assert 1 / 201 <= one.p_value <= 1
    assert [one.mean, one.low, one.high] == pytest.approx([-other.mean, -other.high, -other.low], abs=1e-12)
    assert np.min(table) - 1e-12 <= one.low <= one.high <= np.max(table) + 1e-12


# --- seeds and strata ---


def test_two_seeds_of_opposite_effects_give_a_wide_interval():
    noise = np.random.default_rng(1).normal(0, 0.1, 500)
    alike, opposite = (paired_bootstrap([0.5 + noise, second + noise]) for second in (0.5, -0.5))
    assert alike.high - alike.low < 0.03
    assert alike.p_value < 0.001
    assert opposite.low < -0.45 < 0.45 < opposite.high
    assert opposite.p_value > 0.4
    assert opposite.seeds == 2


def test_seeds_of_the_same_values_say_no_more_than_one():
    values = hits(600, 0.2, np.random.default_rng(2))
    once, thrice = paired_bootstrap([values]), paired_bootstrap([values] * 3)
    assert [thrice.low, thrice.high] == pytest.approx([once.low, once.high], abs=1e-12)


def test_the_figure_is_the_mean_over_stages_of_their_means():
    values, stages = np.array([1.0, 1, 1, 1, 0, 0.5]), [2, 2, 2, 2, 3, 3]
    assert paired_bootstrap([values], strata=stages).mean == pytest.approx((1 + 0.25) / 2)
    assert paired_bootstrap([values]).mean == pytest.approx(4.5 / 6)


def test_users_are_resampled_within_their_stage():
    # What differs between stages only is no uncertainty, in whichever order the users come.
    found = paired_bootstrap([[1.0, 0, 1, 0, 0]], strata=[2, 3, 2, 3, 3], resamples=500)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
    assert paired_bootstrap([[1.0, 0, 1, 0, 0]], resamples=500).low < 0.2


def test_the_spread_over_strata_is_that_of_their_means():
    rng = np.random.default_rng(6)
    values, stages = np.concatenate([rng.normal(0, 1, 800), rng.normal(0, 3, 200)]), np.repeat([2, 3], [800, 200])
    found = paired_bootstrap([values], strata=stages)
    error = np.sqrt(values[:800].var() / 800 + values[800:].var() / 200) / 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


# --- determinism, memory, wrong input ---


def test_equal_seeds_give_equal_comparisons_and_others_do_not():
    values = np.random.default_rng(7).normal(0.1, 1, (2, 300))
    one, same, other = (paired_bootstrap(values, resamples=1000, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert (one.low, one.high) != (other.low, other.high)
    assert one.low == pytest.approx(other.low, abs=0.05)


def test_what_is_held_at_a_time_does_not_change_the_comparison(monkeypatch):
    values, stages = np.random.default_rng(8).normal(0.1, 1, (3, 101)), np.arange(101) % 2
    whole = paired_bootstrap(values, resamples=1000, strata=stages)
    monkeypatch.setattr("peso_cli.evaluation.significance._CELLS", 777)
    small = paired_bootstrap(values, resamples=1000, strata=stages)
    assert [small.low, small.high, small.p_value] == pytest.approx([whole.low, whole.high, whole.p_value], abs=1e-12)


def test_memory_is_bounded_whatever_the_number_of_resamples():
    values = np.random.default_rng(9).normal(size=(2, 10_000))
    tracemalloc.start()
    paired_bootstrap(values, resamples=2000)  # 160 MB of draws
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6


@pytest.mark.parametrize(
    ("values", "settings_", "complaint"),
    [
        (np.zeros((1, 0)), {}, "no users"),
        ([[0.0, np.nan, np.inf]], {}, "2 of 3 differences"),
        ([[1.0]], {"resamples": 0}, "resamples=0"),
        ([[1.0]], {"confidence": 95}, "confidence=95"),
    ],
)
def test_what_cannot_be_compared_is_refused(values, settings_, complaint):
    with pytest.raises(InputError, match=complaint):
        paired_bootstrap(values, **settings_)


# --- Holm ---


def test_holm_equals_values_worked_out_by_hand():
    # Sorted 0.005 0.01 0.03 0.04, times 4 3 2 1: 0.02 0.03 0.06 0.04, of which the last rises to 0.06.
    assert corrected([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert corrected([0.6, 0.9, 0.2]).tolist() == pytest.approx([1, 1, 0.6])
    assert corrected([0.02]).tolist() == [0.02]
    assert corrected([]).tolist() == []


def test_holm_keeps_the_names_and_order_of_a_family():
    found = corrected_family({("single", "ndcg@5"): 0.04, ("single", "recall@5"): 0.01})
    assert list(found.items()) == [(("single", "ndcg@5"), 0.04), (("single", "recall@5"), 0.02)]
    assert corrected_family({}) == {}


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_keeps_order_and_lies_between_raw_and_bonferroni(raw):
    found = corrected(raw)
    assert (found >= raw).all()
    assert (found <= np.minimum(1, np.array(raw) * len(raw))).all()
    assert (np.diff(found[np.argsort(raw, kind="stable")]) >= 0).all()


@pytest.mark.parametrize("raw", [[0.5, 1.5], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(raw):
    with pytest.raises(InputError, match="between 0 and 1"):
        corrected(raw)


# --- figures of every user ---


def predictions_of(trained, method, stages=(2, 3)):
    return [trained.folder(method, stage) / "predictions.parquet" for stage in stages]


def test_means_over_users_are_exactly_those_of_metrics_json(trained):
    finished = sorted(path.parent for path in trained.output.rglob("DONE"))
    assert len(finished) == 7
    for folder in finished:
        metrics, found = json.loads((folder / "metrics.json").read_text()), per_user([folder / "predictions.parquet"])
        expected = metrics["evaluated"][str(metrics["stage"])]["test"]
        sid = {name: value for name, value in expected.items() if "@" in name}
        item = {f"item.{name}": value for name, value in expected["item"].items() if "@" in name}
        assert {name: float(column.mean()) for name, column in found.figures.items()} == {**sid, **item}
        assert (len(found.users), set(found.stages)) == (expected["users"], {metrics["stage"]})


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_every_users_figures_are_exactly_those_of_the_ranking(tmp_path_factory, seed, top):
    rng = np.random.default_rng(seed)
    catalog = catalog_of(np.append(np.arange(15), rng.integers(0, 15, 25) ** 2 // 15)[:, None])
    block = block_of({f"u{n}": ([], rng.integers(0, 40, 3).tolist()) for n in range(30)})
    dataset = Dataset("toy", catalog, 2, {2: block}.__getitem__, {2: block}.__contains__, None)
    rows = np.stack([rng.permutation(15)[:top] for _ in range(30)])
    rows[rng.random(rows.shape) < 0.2] = -1
    scored = Scored(dataset, 2, "test", user_examples(dataset, 2, "test", 20), rows, np.zeros((30, top), np.float32))
    path = tmp_path_factory.mktemp("scored") / "predictions.parquet"
    write_predictions(path, scored)
    found = per_user([path])
    item = item_figures(rows, scored.examples.target_items, catalog)
    expected = sid_figures(scored.ranks, top) | {f"item.{name}": column for name, column in item.items()}
    assert set(found.figures) == set(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(found.figures[name], column, err_msg=name)


def rewritten(path, folder, change):
    table = change(pq.read_table(path))
    pq.write_table(table, folder / "changed.parquet")
    return folder / "changed.parquet"


def test_predictions_without_a_column_or_a_user_are_refused(trained, tmp_path):
    path = predictions_of(trained, "peso")[0]
    with pytest.raises(InputError, match=r"changed\.parquet: has no column position, sharing"):
        per_user([rewritten(path, tmp_path, lambda table: table.drop_columns(["position", "sharing"]))])
    with pytest.raises(InputError, match="holds no user"):
        per_user([rewritten(path, tmp_path, lambda table: table.slice(0, 0))])
    with pytest.raises(InputError, match="no predictions"):
        per_user([])


def test_predictions_of_lists_of_different_lengths_are_refused(trained, tmp_path):
    def shorter(table):
        items = pa.array([row[:5] for row in table["items"].to_pylist()])
        return table.set_column(table.column_names.index("items"), "items", items)

    path = predictions_of(trained, "peso")[0]
    with pytest.raises(InputError, match=r"has 10, .*changed\.parquet has 5"):
        per_user([path, rewritten(path, tmp_path, shorter)])


def test_damaged_predictions_are_told(tmp_path):
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 no more")
    for name in ("predictions.parquet", "nowhere.parquet"):
        with pytest.raises(RunError, match=f"{name}: can't be read"):
            per_user([tmp_path / name])


# --- pairing ---


def run_of(values, users="abcd", stages=(2, 2, 3, 3), name="ndcg@5"):
    return UserFigures(np.array(list(users)), np.array(stages), {name: np.array(values, dtype=np.float64)})


def test_trained_methods_are_paired_user_by_user(trained):
    ours, theirs = (per_user(predictions_of(trained, method)) for method in ("peso", "pretrain"))
    found = paired({1: ours}, {1: theirs})
    compared = paired_bootstrap(found.figures["item.ndcg@10"], strata=found.stages, resamples=200)
    by_stage = [
        np.mean(ours.figures["item.ndcg@10"][ours.stages == s])
        - np.mean(theirs.figures["item.ndcg@10"][theirs.stages == s])
        for s in (2, 3)
    ]
    assert compared.mean == pytest.approx(np.mean(by_stage), abs=1e-12)
    assert compared.users == len(ours.users)
    same = paired({1: ours}, {1: ours})
    assert all((column == 0).all() for column in same.figures.values())


def test_users_are_found_whatever_their_order():
    found = paired({1: run_of([1, 2, 3, 4])}, {1: run_of([40, 30, 20, 10], users="dcba", stages=(3, 3, 2, 2))})
    assert found.users.tolist() == ["a", "b", "c", "d"]
    assert found.stages.tolist() == [2, 2, 3, 3]
    assert found.figures["ndcg@5"].tolist() == [[-9, -18, -27, -36]]


def test_a_user_of_two_stages_is_compared_in_each():
    found = paired({1: run_of([1, 2, 3, 4], users="aabb", stages=(2, 3, 2, 3))}, {1: run_of([0] * 4, users="abab")})
    assert found.figures["ndcg@5"].tolist() == [[1, 3, 2, 4]]


def test_users_of_one_side_only_are_refused_with_their_numbers():
    method, baseline = run_of([0] * 4), run_of([0] * 3, users="abx", stages=(2, 2, 3))
    counts = r"seed 1 .*seed 1 .*: 2 \(of stages 3\) only by the first, 1 \(of stages 3\) .*second, 2 by both"
    with pytest.raises(InputError, match=counts):
        paired({1: method}, {1: baseline})
    with pytest.raises(InputError, match=r"the method's seed 1 and the method's seed 2 scored different users"):
        paired({1: method, 2: baseline}, {1: method, 2: method})


def test_seeds_are_paired_by_their_number():
    one, two = run_of([1] * 4), run_of([2] * 4)
    found = paired({2: two, 1: one}, {1: run_of([0] * 4), 2: run_of([0.5] * 4)})
    assert found.figures["ndcg@5"].tolist() == [[1] * 4, [1.5] * 4]


def test_unequal_seeds_are_refused_unless_allowed():
    many, one = {1: run_of([1] * 4), 2: run_of([2] * 4)}, {3: run_of([4] * 4)}
    with pytest.raises(InputError, match="the method has seeds 1, 2 and the baseline 3"):
        paired(many, one)
    with pytest.raises(InputError, match="the method has seeds 1, 2 and the baseline none"):
        paired(many, {}, unequal_seeds=True)
    assert paired(many, one, unequal_seeds=True).figures["ndcg@5"].tolist() == [[-3] * 4, [-2] * 4]
    assert paired(one, many, unequal_seeds=True).figures["ndcg@5"].tolist() == [[3] * 4, [2] * 4]
    swapped = {1: many[1], 3: many[2]}
    assert paired(many, swapped, unequal_seeds=True).figures["ndcg@5"].tolist() == [[-0.5] * 4, [0.5] * 4]


def test_a_stage_given_twice_and_figures_of_one_side_only_are_refused():
    with pytest.raises(InputError, match="the baseline's seed 1 has 1 users twice"):
        paired({1: run_of([0] * 4)}, {1: run_of([0] * 4, users="abcc")})
    with pytest.raises(InputError, match=r"only one of .* has ndcg@20, ndcg@5; compare runs of one decoding\.top_k"):
        paired({1: run_of([0] * 4)}, {1: run_of([0] * 4, name="ndcg@20")})
