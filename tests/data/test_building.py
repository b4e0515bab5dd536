import json
import os
import random
import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged import ALL, BASE, HALVES, Lines, dataset_at, digests, items_at, raw_of, stages_at

import peso_cli.data.build
from peso_cli.bench.building import bench_build
from peso_cli.data.build import build
from peso_cli.data.layout import FORMAT, stage_folders
from peso_cli.data.raw import Cleaning, Split
from peso_cli.data.sources.frames import ITEM_SCHEMA, Raw
from peso_cli.errors import InputError, RunError
from peso_cli.files import read_json

ROWS = [
    ("b", "y", 0),
    ("a", "x", 1),
    ("a", "z", 1),
    ("a", "y", 2),
    ("c", "x", 7),
    ("a", "w", 8),
    ("b", "z", 9),
    ("a", "x", 8),
]
TEXTS = [("x", "An X"), ("unused", "Nobody's"), ("w", "A W")]


def made(root, rows=ROWS, texts=TEXTS, cleaning=ALL, split=HALVES, display=None, **changes):
    return build(dataset_at(root, **changes), cleaning, split, raw_of(rows, texts), display or Lines())


def test_a_build_leaves_stages_with_events_items_and_figures(tmp_path):
    report = made(tmp_path / "built")
    first = [("a", "x", 1), ("a", "z", 1), ("a", "y", 2), ("b", "y", 0)]
    second = [("a", "w", 8), ("a", "x", 8), ("b", "z", 9), ("c", "x", 7)]
    assert stages_at(tmp_path / "built") == [first, second]
    assert items_at(tmp_path / "built") == [["x", "y", "z"], ["w"]]
    figures = report.stages[1]
    assert (figures.users, figures.new_users, figures.items, figures.new_items) == (3, 1, 3, 1)
    assert (figures.interactions, figures.first_timestamp, figures.last_timestamp) == (4, BASE + 7, BASE + 9)
    assert not report.reused
    assert [path.name for path in tmp_path.iterdir()] == ["built"]


def test_items_carry_the_texts_that_there_are(tmp_path):
    made(tmp_path / "built")
    table = pl.read_parquet(stage_folders(tmp_path / "built")[0].items)
    assert table.schema == ITEM_SCHEMA
    assert table["title"].to_list() == ["An X", None, None]


def test_the_manifests_say_what_was_done(tmp_path):
    display = Lines()
    made(tmp_path / "built", cleaning=replace(ALL, duplicates="events"), display=display)
    document = read_json(tmp_path / "built" / "dataset.json")
    assert (document["format"], document["name"], document["stages"], document["cuts"]) == (
        FORMAT,
        "mine",
        2,
        [BASE + 7],
    )
    assert document["settings"]["split"] == {
        "kind": "chronological",
        "by": "shares",
        "shares": [0.5, 0.5],
        "min_events": 1,
    }
    assert [step["step"] for step in document["dropped"]] == ["bad rows", "duplicates", "min_events"]
    assert str(tmp_path) not in json.dumps(document)
    stage = read_json(tmp_path / "built" / "stage_1" / "stage.json")
    assert (stage["format"], stage["origin"]) == (FORMAT, "build")
    found = digests(tmp_path / "built" / "stage_1")
    assert stage["files"] == {name: found[name] for name in ("interactions.parquet", "items.parquet")}
    assert "duplicates: 0 events dropped, 8 events, 3 users, 4 items left" in display.lines


def test_the_same_settings_and_inputs_are_reused_and_said_to_be(tmp_path):
    report, display = made(tmp_path / "built"), Lines()
    before = digests(tmp_path / "built")
    again = made(tmp_path / "built", display=display)
    assert again == replace(report, reused=True)
    assert digests(tmp_path / "built") == before
    assert "same settings" in display.lines[0]


def test_ways_to_split_that_arent_taken_make_no_difference(tmp_path):
    made(tmp_path / "built")
    assert made(tmp_path / "built", split=replace(HALVES, periods=9)).reused


def test_a_dataset_of_other_settings_is_left_alone(tmp_path):
    made(tmp_path / "built")
    before = digests(tmp_path / "built")
    with pytest.raises(InputError, match=r"built with cleaning\.min_rating=null, not 3\.0 .*dataset\.name"):
        made(tmp_path / "built", cleaning=replace(ALL, min_rating=3.0, core_users=7))
    assert digests(tmp_path / "built") == before


def test_a_dataset_of_other_content_is_left_alone(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("one")
    made(tmp_path / "built", interactions=(str(log),))
    assert made(tmp_path / "built", interactions=(str(log),)).reused
    log.write_text("other")
    with pytest.raises(InputError, match=r"built with inputs\..*log\.csv.*choose another"):
        made(tmp_path / "built", interactions=(str(log),))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else than a dataset"):
        made(tmp_path / "built")
    assert os.listdir(tmp_path / "built") == ["thesis.txt"]


@pytest.mark.parametrize("step", ["sort_parts", "cut_points", "write_texts", "write_json", "move_into_place"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RunError])
def test_a_build_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch, step, error):
    def interrupted(*arguments, **named):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(peso_cli.data.build, step, interrupted)
        with pytest.raises(error):
            made(tmp_path / "built")
    assert list(tmp_path.iterdir()) == []
    assert not made(tmp_path / "built").reused


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
import peso_cli.data.build as module
module.cut_points = lambda *arguments: os.kill(os.getpid(), 9)
from data.test_building import made
from pathlib import Path
made(Path({str(tmp_path / "built")!r}))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == -9
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    made(tmp_path / "built")
    assert [path.name for path in tmp_path.iterdir()] == ["built"]


def test_a_folder_that_comes_into_being_meanwhile_is_left_alone(tmp_path, monkeypatch):
    def meanwhile(made_folder, target):
        target.mkdir()
        (target / "other").write_text("")
        original(made_folder, target)

    original = peso_cli.data.build.move_into_place
    monkeypatch.setattr(peso_cli.data.build, "move_into_place", meanwhile)
    with pytest.raises(RunError, match="came into being"):
        made(tmp_path / "built")
    assert os.listdir(tmp_path) == ["built"]
    assert os.listdir(tmp_path / "built") == ["other"]


BUSY = [(f"u{random.Random(n).randrange(9)}", f"i{n % 7}", n // 3) for n in range(90)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.randoms(use_true_random=False), size=st.sampled_from([4, 25, 1000]))
def test_neither_parts_nor_the_order_of_different_moments_change_a_byte(tmp_path_factory, monkeypatch, seed, size):
    folder = tmp_path_factory.mktemp("order")
    cleaning, split = replace(ALL, core_users=3, duplicates="events"), replace(HALVES, min_events=2)
    made(folder / "one", BUSY, cleaning=cleaning, split=split)
    with monkeypatch.context() as patch:
        patch.setattr(peso_cli.data.build, "PART", size)
        # Moments trade places; the events within a moment keep theirs.
        moments = sorted({t for _, _, t in BUSY}, key=lambda _: seed.random())
        made(folder / "other", [row for t in moments for row in BUSY if row[2] == t], cleaning=cleaning, split=split)
    one, other = (
        [pl.read_parquet(path) for stage in stage_folders(folder / name) for path in (stage.interactions, stage.items)]
        for name in ("one", "other")
    )
    assert all(a.equals(b) for a, b in zip(one, other, strict=True))
    if size == 1000:
        assert digests(folder / "one") == digests(folder / "other")


def test_two_threads_make_the_same_bytes_as_one(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
from data.test_building import made
from pathlib import Path
rows = [(f"u{{n * 7919 % 1000}}", f"i{{n % 97}}", n // 3) for n in range(20000)]
made(Path({str(tmp_path)!r}) / sys.argv[1], rows)
"""
    for threads in ("1", "2"):
        environment = {**os.environ, "POLARS_MAX_THREADS": threads}
        subprocess.run([sys.executable, "-c", code, threads], env=environment, check=True)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_the_bench_builds_twice_in_processes_of_their_own():
    document = bench_build(3000, Lines())
    assert list(document["sizes"]) == ["3000", "6000"]
    for size in document["sizes"].values():
        assert size["seconds"] > 0
        assert 10 * 2**20 < size["peak_bytes"] < 2**30
        assert len(size["stages"]) == 5


@pytest.mark.parametrize("split", ["chronological", "user_disjoint"])
def test_a_hundred_thousand_events_make_five_stages(tmp_path, hundred_thousand, split):
    cleaning = Cleaning("fail", "auto", "events", None, 5, 5, None, None)
    shares = Split(split, "shares", (0.6, 0.1, 0.1, 0.1, 0.1), (), 5, 5)
    report = build(dataset_at(tmp_path / "built"), cleaning, shares, hundred_thousand, Lines())
    assert [step.rows_after for step in report.dropped][:2] == [100_000, 100_000]
    assert len(report.stages) == 5
    events = sum(stage.interactions for stage in report.stages)
    assert report.dropped[-1].rows_after == events > 95_000


@pytest.fixture
def hundred_thousand() -> Raw:
    """As many users, items and events as MovieLens-100K has, with timestamps in seconds."""
    generator = random.Random(3)
    rows = []
    for user in range(943):
        start, size = 874_724_710 + generator.randrange(18_000_000), 106 + (user < 42)
        items = generator.sample(range(1682), size)
        rows += [(f"{user}", f"{item}", str(start + 40 * n)) for n, item in enumerate(items)]
    return raw_of(rows)
