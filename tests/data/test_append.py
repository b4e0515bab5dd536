import json
from dataclasses import replace

import polars as pl
import pytest
from logged import ALL, HALVES, Lines, dataset_at, digests, items_at, raw_of, stages_at

import peso_cli.data.append
from peso_cli.data.append import append
from peso_cli.data.build import build
from peso_cli.data.layout import StageFolder
from peso_cli.errors import InputError, RunError
from peso_cli.files import read_json

OLD = [("a", "x", 0), ("a", "y", 1), ("b", "x", 2), ("b", "y", 8), ("a", "z", 9), ("b", "z", 9)]
NEW = [("c", "new", 12), ("a", "x", 10), ("c", "x", 11), ("a", "other", 10)]


@pytest.fixture
def root_of(tmp_path):
    """Builds a dataset of OLD and returns its folder."""

    def make(split=HALVES, **cleaning):
        build(dataset_at(tmp_path / "built"), replace(ALL, **cleaning), split, raw_of(OLD), Lines())
        return tmp_path / "built"

    return make


def test_a_stage_is_added_and_nothing_that_exists_changes_a_byte(root_of):
    root = root_of()
    before = digests(root)
    report = append(root, raw_of(NEW, [("new", "A new one"), ("x", "An X")]), Lines(), inputs=["log.csv"])
    after = digests(root)
    assert {name: after[name] for name in before} == before
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"stage_3"}
    assert stages_at(root)[2] == [("a", "x", 10), ("a", "other", 10), ("c", "x", 11), ("c", "new", 12)]
    assert items_at(root)[2] == ["new", "other"]
    assert pl.read_parquet(StageFolder(root, 3).items)["title"].to_list() == ["A new one", None]
    stage = report.stage
    assert (stage.stage, stage.users, stage.new_users, stage.items, stage.new_items) == (3, 2, 1, 3, 2)
    assert read_json(StageFolder(root, 3).manifest)["origin"] == "append"
    assert sorted(path.name for path in root.iterdir()) == ["dataset.json", "stage_1", "stage_2", "stage_3"]


def test_a_stage_after_an_appended_one_goes_on_from_it(root_of):
    root = root_of()
    append(root, raw_of(NEW), Lines())
    report = append(root, raw_of([("c", "other", 20), ("d", "last", 21)]), Lines())
    assert (report.stage.stage, report.stage.new_users, items_at(root)[3]) == (4, 1, ["last"])
    with pytest.raises(InputError, match=r"2 of 2 rows are earlier than .*, when stage 4 ends"):
        append(root, raw_of([("c", "other", 19), ("d", "last", 20)]), Lines())


def test_a_dataset_with_an_appended_stage_is_still_the_one_that_was_built(root_of):
    root = root_of()
    append(root, raw_of(NEW), Lines())
    report = build(dataset_at(root), ALL, HALVES, raw_of(OLD), Lines())
    assert report.reused
    assert [stage.origin for stage in report.stages] == ["build", "build", "append"]


def test_events_before_the_last_stage_ends_are_refused_with_their_places(root_of):
    root = root_of()
    before = digests(root)
    with pytest.raises(InputError, match=r"1 of 5 rows are earlier than .*stage 2 ends \(log:5\); .*on_bad_row=drop"):
        append(root, raw_of([*NEW, ("a", "x", 8)]), Lines())
    assert digests(root) == before


@pytest.mark.parametrize("recorded", [True, False])
def test_events_before_the_last_stage_ends_are_left_out_on_request(root_of, recorded):
    root = root_of(on_bad_row="drop") if recorded else root_of()
    rows = raw_of([*NEW, ("a", "x", 8), ("a", "x", "soon")])
    report = append(root, rows, Lines(), on_bad_row=None if recorded else "drop")
    assert [(step.rows_before, step.rows_after) for step in report.dropped][:2] == [(6, 5), (5, 4)]
    assert report.stage.interactions == 4


def test_events_that_the_dataset_holds_are_duplicates(root_of):
    root = root_of(duplicates="events")
    rows = [("a", "z", 9), ("a", "x", 9), ("b", "x", 10), ("b", "x", 10)]
    assert append(root, raw_of(rows), Lines()).stage.interactions == 2
    assert stages_at(root)[2] == [("a", "x", 9), ("b", "x", 10)]


def test_pairs_that_the_dataset_holds_in_any_stage_are_duplicates(root_of):
    root = root_of(duplicates="pairs")
    rows = [("a", "x", 10), ("a", "new", 11), ("a", "new", 12), ("c", "x", 13)]
    append(root, raw_of(rows), Lines())
    assert stages_at(root)[2] == [("a", "new", 11), ("c", "x", 13)]


def test_the_same_log_twice_adds_nothing(root_of):
    root = root_of(duplicates="events")
    rows = [("c", "x", 20), ("c", "y", 20)]
    append(root, raw_of(rows), Lines())
    with pytest.raises(InputError, match="duplicates: none of 2 events"):
        append(root, raw_of(rows), Lines())
    assert not (root / "stage_4").exists()


def test_users_that_come_back_are_left_out_where_users_are_disjoint(root_of):
    root = root_of(split=replace(HALVES, kind="user_disjoint"))
    report = append(root, raw_of(NEW), Lines())
    assert {user for user, _, _ in stages_at(root)[2]} == {"c"}
    assert "users of earlier stages" in [step.step for step in report.dropped]


def test_new_users_need_the_core_and_all_users_the_fewest_events(root_of):
    root = root_of(core_users=3, split=replace(HALVES, by="dates", dates=("2017-07-14T02:40:00.005Z",)))
    rows = [("a", "x", 10), ("c", "x", 11), ("c", "y", 12), ("d", "x", 13), ("d", "y", 14), ("d", "z", 15)]
    append(root, raw_of(rows), Lines())
    assert {user for user, _, _ in stages_at(root)[2]} == {"a", "d"}


def test_the_fewest_events_of_a_user_in_a_stage_hold_for_the_new_one(root_of):
    root = root_of()
    document = json.loads((root / "dataset.json").read_text())
    document["settings"]["split"]["min_events"] = 2
    (root / "dataset.json").write_text(json.dumps(document))
    append(root, raw_of([*NEW, ("d", "x", 13)]), Lines())
    assert {user for user, _, _ in stages_at(root)[2]} == {"a", "c"}


def test_bounds_of_time_were_meant_for_what_was_there(root_of):
    root = root_of(latest="2017-07-14T02:40:00.010Z")
    assert append(root, raw_of(NEW), Lines()).stage.interactions == 4


def test_ratings_count_as_they_did(root_of, tmp_path):
    rows = [(*row, 5.0) for row in OLD]
    build(dataset_at(tmp_path / "rated"), replace(ALL, min_rating=4.0), HALVES, raw_of(rows), Lines())
    append(tmp_path / "rated", raw_of([("a", "x", 10, 3.0), ("a", "y", 10, 4.0)]), Lines())
    assert stages_at(tmp_path / "rated")[2] == [("a", "y", 10)]


@pytest.mark.parametrize("step", ["take_in", "sort_parts", "write_texts", "move_into_place"])
def test_an_append_that_is_interrupted_leaves_nothing(root_of, monkeypatch, step):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    root = root_of()
    before = digests(root)
    monkeypatch.setattr(peso_cli.data.append, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        append(root, raw_of(NEW), Lines())
    assert digests(root) == before
    assert len(list(root.iterdir())) == 3


def test_a_stage_that_comes_into_being_meanwhile_is_left_alone(root_of, monkeypatch):
    def meanwhile(folder, target):
        monkeypatch.undo()
        append(root, raw_of([("z", "x", 30)]), Lines())
        peso_cli.data.append.move_into_place(folder, target)

    root = root_of()
    monkeypatch.setattr(peso_cli.data.append, "move_into_place", meanwhile)
    with pytest.raises(RunError, match="stage_3: came into being"):
        append(root, raw_of(NEW), Lines())
    assert stages_at(root)[2] == [("z", "x", 30)]


def test_without_a_built_dataset_there_is_nothing_to_append_to(tmp_path):
    with pytest.raises(InputError, match="holds no built dataset; make one by peso data build"):
        append(tmp_path, raw_of(NEW), Lines())
