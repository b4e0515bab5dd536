import json
import time
from dataclasses import asdict

import numpy as np
import pytest

from peso_cli.data.blocks import Dataset, block_from_lists, read_released
from peso_cli.data.statistics import StageStatistics, TotalStatistics, stage_statistics, total_statistics
from peso_cli.semantic_ids.catalog import Catalog


def dataset_of(*blocks):
    """A dataset from one dict a stage, user to (previous, current); None is a missing stage."""
    catalog = Catalog(tuple("abcdefgh"), np.arange(8, dtype=np.int32)[:, None], {})

    def read(stage):
        pairs = {u: tuple(np.array(p, dtype=np.int32) for p in lists) for u, lists in blocks[stage - 1].items()}
        return block_from_lists(stage, pairs)

    return Dataset("toy", catalog, len(blocks), read, lambda stage: blocks[stage - 1] is not None)


FIRST = {"u": ([], [0, 1, 2, 0]), "v": ([], [1, 3])}
SECOND = {"u": ([0, 1, 2, 0], [1, 4, 5, 6]), "w": ([], [5, 2, 0])}


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "stats.json").read_text())


@pytest.fixture(scope="module")
def games(shared):
    return read_released(shared / "data" / "amazon_games", "amazon_games")


@pytest.fixture(scope="module")
def instruments(shared):
    return read_released(shared / "data" / "amazon_instruments", "amazon_instruments")


def check_row(row, golden_row):
    for name in ("users", "items", "interactions"):
        assert getattr(row, name) == golden_row[name], name
    assert row.new_users == golden_row["new_users_by"]["empty_previous_block"]
    assert row.mean_length == pytest.approx(golden_row["mean_length"], rel=1e-12)
    assert row.sparsity == pytest.approx(golden_row["sparsity"], rel=1e-12)


def test_a_toy_dataset_counted_by_hand():
    first, second = stage_statistics(dataset_of(FIRST, SECOND))
    assert asdict(first) == {
        "stage": 1,
        "users": 2,
        "new_users": 2,
        "items": 4,
        "new_items": 4,
        "interactions": 6,
        "mean_length": 3.0,
        "sparsity": 0.25,
        "train": 2,
        "valid": 1,
        "test": 1,
        "users_without_examples": 1,
    }
    assert (second.new_users, second.items, second.new_items, second.interactions) == (1, 6, 3, 7)
    assert (second.train, second.valid, second.test, second.users_without_examples) == (3, 2, 2, 0)
    assert total_statistics(dataset_of(FIRST, SECOND)) == TotalStatistics(users=3, items=7, interactions=13)


def test_a_missing_stage_is_unknown_and_so_are_the_new_items_after_it():
    dataset = dataset_of(FIRST, None, SECOND)
    first, missing, third = stage_statistics(dataset)
    assert first.new_items == 4
    assert missing == StageStatistics(stage=2)
    assert (third.stage, third.items, third.new_items) == (3, 6, None)
    assert total_statistics(dataset) == TotalStatistics(users=None, items=None, interactions=None)


def test_a_stage_without_users_has_no_ratios():
    _, row = stage_statistics(dataset_of(FIRST, {}))
    assert (row.users, row.items, row.interactions, row.test) == (0, 0, 0, 0)
    assert (row.mean_length, row.sparsity) == (None, None)


def test_games_reproduces_the_golden_table(games, golden):
    rows = stage_statistics(games)
    assert [row.stage for row in rows] == [1, 2, 3, 4, 5]
    for row in rows:
        expected = golden["Video_Games"][f"D{row.stage}"]
        check_row(row, expected)
        assert row.new_items == expected["new_items_by"]["item_id_at_or_above_running_count"]


def test_games_example_counts_are_the_golden_ones(games, shared):
    counts = json.loads((shared / "golden" / "examples.json").read_text())["block_counts"]
    (expected,) = counts.values()
    for row in stage_statistics(games):
        block = expected[str(row.stage - 1)]
        assert row.train == block["train_examples"]
        assert row.valid == block["valid_examples"]
        assert row.test == block["test_examples"]
        assert row.users_without_examples == block["users_below_three"]
        assert (row.users, row.interactions, row.items) == (block["users"], block["interactions"], block["items"])
        assert row.new_users == block["users_without_previous"]


def test_games_totals_add_up_from_what_is_new_in_each_stage(games):
    rows, total = stage_statistics(games), total_statistics(games)
    assert total.users == sum(row.new_users for row in rows)
    assert total.items == sum(row.new_items for row in rows)
    assert total.interactions == sum(row.interactions for row in rows) == 134_173


def test_instruments_reproduces_the_published_table_but_for_new_items(instruments, golden):
    first, *rows = stage_statistics(instruments)
    assert first == StageStatistics(stage=1)
    assert total_statistics(instruments) == TotalStatistics()
    for row in rows:
        check_row(row, golden["Instruments"][f"D{row.stage}"])
        published = golden["published_Instruments"][f"D{row.stage}"]
        assert row.new_items is None
        assert (row.users, row.new_users, row.items) == tuple(published[k] for k in ("users", "new_users", "items"))
        assert row.interactions == published["interactions"]
        assert round(row.mean_length, 2) == published["mean_length"]
        assert round(row.sparsity, 4) == published["sparsity"]


def test_games_takes_little_time_once_read(games):
    for stage in range(1, 6):
        games.block(stage)
    start = time.perf_counter()
    stage_statistics(games)
    total_statistics(games)
    assert time.perf_counter() - start < 2


def test_values_are_plain_numbers(games):
    for row in stage_statistics(games):
        assert {type(value) for value in asdict(row).values()} == {int, float}
    assert {type(value) for value in asdict(total_statistics(games)).values()} == {int}
