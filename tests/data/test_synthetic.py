from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from peso_cli.data.blocks import Block, Dataset
from peso_cli.data.synthetic import SyntheticDataset, generate
from peso_cli.data.synthetic_world import World
from peso_cli.errors import InputError

YAML = Path(__file__).resolve().parents[2] / "conf" / "dataset" / "synthetic.yaml"
DEFAULTS = yaml.safe_load(YAML.read_text(encoding="utf-8"))
FIGURES = ["recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10"]


def config(**changes: Any) -> SyntheticDataset:
    return SyntheticDataset(**{**DEFAULTS, **changes})


def small(**changes: Any) -> SyntheticDataset:
    return config(**{"users": 60, "items": 80, **changes})


def per_user(block: Block) -> Iterator[tuple[str, NDArray[np.int32], NDArray[np.int32]]]:
    for row, user in enumerate(block.users):
        start, current, end = block.starts[row], block.current[row], block.starts[row + 1]
        yield user, block.events[start:current], block.events[current:end]


def blocks(dataset: Dataset) -> list[Block]:
    return [dataset.block(stage) for stage in range(1, dataset.stages + 1)]


@pytest.fixture(scope="module")
def default() -> Dataset:
    return generate(config())


@pytest.fixture(scope="module")
def world() -> World:
    return World(config())


def test_the_yaml_holds_every_field_and_opens_with_its_command() -> None:
    assert list(DEFAULTS) == list(SyntheticDataset.__dataclass_fields__)
    lines = YAML.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# peso train dataset=synthetic dataset.users=500 dataset.items=400"
    assert all("#" in line for line in lines[5:])


def test_equal_configurations_give_equal_worlds_in_whatever_order_they_are_read() -> None:
    one, other = generate(small()), generate(small())
    backwards = [other.block(stage).digest for stage in (5, 4, 3, 2, 1)]
    assert [block.digest for block in blocks(one)] == backwards[::-1]
    assert one.catalog.digest == other.catalog.digest
    assert one.catalog.titles == other.catalog.titles
    assert one.ceiling is not None
    assert other.ceiling is not None
    assert one.ceiling(5) == other.ceiling(5)


def test_another_seed_gives_another_world() -> None:
    one, other = generate(small(seed=3)), generate(small(seed=4))
    assert one.catalog.digest != other.catalog.digest
    assert all(a.digest != b.digest for a, b in zip(blocks(one), blocks(other), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    users=st.integers(20, 80),
    items=st.integers(30, 130),
    stages=st.integers(1, 12),
    seed=st.integers(0, 2**40),
    base_share=st.floats(0.5, 0.95),
    new_users=st.floats(0.0, 0.9),
    dormant_users=st.floats(0.0, 1.0),
    new_items=st.floats(0.0, 0.4),
    mean_events=st.floats(5.0, 12.0),
    follow=st.floats(0.0, 0.9),
    explore=st.floats(0.01, 1.0),
    taste_drift=st.floats(0.0, 1.0),
    trend=st.floats(0.0, 1.0),
    shared_ids=st.floats(0.0, 0.3),
)
def test_every_world_keeps_the_contracts(**changes: Any) -> None:
    settings_ = config(**changes)
    dataset = generate(settings_)
    check_catalog(dataset, settings_)
    check_blocks(dataset, settings_)
    check_ceilings(dataset)


def check_catalog(dataset: Dataset, settings_: SyntheticDataset) -> None:
    catalog = dataset.catalog
    assert len(catalog.items) == settings_.items
    assert set(catalog.titles) == set(catalog.items)
    assert len(set(catalog.titles.values())) == settings_.items
    assert len(catalog.sids) == settings_.items - round(settings_.shared_ids * settings_.items)
    assert catalog.levels == 3
    assert catalog.sid_sizes.max() <= 2


def check_blocks(dataset: Dataset, settings_: SyntheticDataset) -> None:
    history: dict[str, list[int]] = {}
    for block in blocks(dataset):
        assert len(block.users) == len(set(block.users)) > 0
        for user, previous, current in per_user(block):
            assert len(current) >= 5
            assert previous.tolist() == history.get(user, [])
            history[user] = previous.tolist() + current.tolist()
    assert len(history) == settings_.users
    wait = settings_.items // 2
    for events in history.values():
        assert 0 <= min(events) <= max(events) < settings_.items
        assert all(item not in events[max(0, at - wait) : at] for at, item in enumerate(events))


def check_ceilings(dataset: Dataset) -> None:
    assert dataset.ceiling is not None
    for stage in range(1, dataset.stages + 1):
        figures = dataset.ceiling(stage)
        assert list(figures) == FIGURES
        assert 0 < figures["recall@1"] <= figures["recall@5"] <= figures["recall@10"] <= 1 + 1e-9
        assert figures["recall@1"] <= figures["ndcg@5"] <= figures["ndcg@10"] <= figures["recall@10"]


def test_blocks_are_drawn_quickly_and_stage_one_holds_its_share() -> None:
    start = time.process_time()
    sizes = [int(block.current_lengths.sum()) for block in blocks(generate(config()))]
    assert time.process_time() - start < 5
    assert 15_000 <= sum(sizes) <= 21_000
    assert sizes[0] / sum(sizes) == pytest.approx(DEFAULTS["base_share"], abs=0.02)
    assert max(sizes[1:]) / min(sizes[1:]) < 1.2


@pytest.mark.parametrize("stages", [2, 3, 9])
def test_stage_one_holds_its_share_for_any_number_of_stages(stages: int) -> None:
    sizes = [block.current_lengths.sum() for block in blocks(generate(config(stages=stages, items=200)))]
    assert sizes[0] / sum(sizes) == pytest.approx(DEFAULTS["base_share"], abs=0.02)


def test_one_stage_holds_everybody() -> None:
    dataset = generate(small(stages=1))
    assert len(dataset.block(1).users) == 60
    assert dataset.has(1)
    assert not dataset.has(2)


def test_later_stages_see_new_returning_and_dormant_users(default: Dataset) -> None:
    present = [set(block.users) for block in blocks(default)]
    for stage in range(3, 6):
        now, before = present[stage - 1], present[stage - 2]
        earlier = set.union(*present[: stage - 1])
        shares = [len(now - earlier), len(now & before), len((now & earlier) - before)]
        assert np.array(shares) / len(now) == pytest.approx([0.4, 0.3, 0.3], abs=0.02)
        assert 0.1 <= len(now) / len(present[0]) <= 0.16
    assert any(user not in present[2] and user not in present[3] for user in present[4] & present[1])


def test_later_stages_bring_new_items_with_codes_known_from_elsewhere(default: Dataset) -> None:
    launched = 1200
    codes = default.catalog.codes
    for stage, block in enumerate(blocks(default), start=1):
        events = block.current_events
        assert events.max() < launched
        if stage > 1:
            assert (events >= launched - 75).any()
            assert (events >= 1200).mean() > 0.02
        launched += 75
    for level in range(3):
        assert set(codes[1200:, level]) <= set(codes[np.unique(default.block(1).current_events), level])


def test_semantic_ids_and_titles_express_the_hierarchy(default: Dataset) -> None:
    catalog = default.catalog
    assert max(catalog.level_sizes) <= 16
    titles = [catalog.titles[item].split() for item in catalog.items]
    theme_of: dict[str, set[int]] = {}
    series_of: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for (series, theme, *_), (first, second, _) in zip(titles, catalog.codes.tolist(), strict=True):
        theme_of.setdefault(theme, set()).add(first)
        series_of.setdefault((theme, series), set()).add((first, second))
    assert len(theme_of) == catalog.level_sizes[0]
    assert all(len(codes) == 1 for codes in [*theme_of.values(), *series_of.values()])


def test_the_ceiling_is_what_ranking_by_the_true_chances_attains(world: World) -> None:
    for stage in range(1, 6):
        block = world.block(stage)
        targets = world.catalog.sid_of[block.events[block.starts[1:] - 1]]
        hits = world.ranking(stage) == targets[:, None]
        noise = 3.5 * np.sqrt(0.25 / len(targets))
        ceiling = world.figures(stage)
        for k in (1, 5, 10):
            assert hits[:, :k].any(axis=1).mean() == pytest.approx(ceiling[f"recall@{k}"], abs=noise)
        dcg = (hits / np.log2(np.arange(2, 12))).sum(axis=1).mean()
        assert dcg == pytest.approx(ceiling["ndcg@10"], abs=noise)


def test_the_ceiling_leaves_room_above_popularity(default: Dataset) -> None:
    assert default.ceiling is not None
    for stage in range(1, 6):
        block = default.block(stage)
        sids = default.catalog.sid_of
        seen = np.concatenate([current[:-2] for _, _, current in per_user(block)])
        popular = np.argsort(-np.bincount(sids[seen]), kind="stable")[:10]
        popularity = np.isin(sids[block.events[block.starts[1:] - 1]], popular).mean()
        assert 0.02 < popularity < 0.15
        assert 0.45 <= default.ceiling(stage)["recall@10"] <= 0.62


def test_the_order_of_items_carries_signal() -> None:
    def repeats(follow: float) -> float:
        dataset = generate(config(users=500, items=400, follow=follow))
        block = dataset.block(1)
        series = [tuple(codes[:2]) for codes in dataset.catalog.codes.tolist()]
        steps = [step for _, _, current in per_user(block) for step in pairwise(current)]
        return float(np.mean([series[a] == series[b] for a, b in steps]))

    assert repeats(0.5) > repeats(0.0) + 0.2


def test_a_ranker_that_stays_at_stage_one_falls_behind(world: World) -> None:
    loss = [1 - world.figures(stage, known=1)["recall@10"] / world.figures(stage)["recall@10"] for stage in range(1, 6)]
    assert loss[0] == 0
    assert all(share > 0.15 for share in loss[2:])
    assert loss[4] > loss[1]
    assert all(world.figures(s, known=s - 1)["recall@10"] > world.figures(s, known=1)["recall@10"] for s in (3, 4, 5))


def test_without_drift_and_trend_nothing_is_lost() -> None:
    still = World(small(taste_drift=0.0, trend=0.0))
    assert all(still.figures(stage, known=1) == still.figures(stage) for stage in range(1, 6))


@pytest.mark.parametrize("moving", [{"taste_drift": 0.4, "trend": 0.0}, {"taste_drift": 0.0, "trend": 0.6}])
def test_drift_and_trend_each_cost_a_frozen_ranker(moving: dict[str, float]) -> None:
    moved = World(config(users=600, items=400, **moving))
    assert moved.figures(5, known=1)["recall@10"] < 0.93 * moved.figures(5)["recall@10"]


@pytest.mark.parametrize(
    "change",
    [
        {"users": 19}, {"users": 50.0}, {"users": "50"}, {"users": True}, {"items": 29}, {"stages": 0}, {"seed": -1},
        {"seed": 1.5}, {"name": "a/b"}, {"name": ".."}, {"name": "a..b"}, {"name": ""}, {"name": "a\n"},
        {"source": "released"}, {"taste_drift": 1.1}, {"trend": -0.1}, {"trend": float("nan")}, {"explore": 0.0},
        {"mean_events": 4.0}, {"mean_events": float("inf")}, {"shared_ids": 0.5}, {"base_share": 1.0}, {"colour": 1},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_bounds_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**change)


def test_a_stage_that_is_not_there_is_refused(world: World) -> None:
    for call in (lambda: world.block(6), lambda: world.figures(0), lambda: world.ranking(2, known=0)):
        with pytest.raises(InputError, match="has stages 1 to 5"):
            call()
