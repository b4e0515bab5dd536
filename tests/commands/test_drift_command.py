import json

import pytest
from built_worlds import write_built, write_stages
from commands.running import WORLD, peso, refused

from peso_cli.data.blocks import read_released

STAGES = [{"ann": ["p", "q", "p"], "bob": ["r", "q", "p"]}, {"bob": ["p", "s", "q"]}]


@pytest.fixture
def settings(tmp_path):
    """The overrides of a built dataset of two stages."""
    root = write_built(tmp_path / "toy", STAGES, {"p": {"title": "A pen"}})
    return ("dataset=built", "dataset.name=toy", f"dataset.path={root}")


def rows_of(text):
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]
    return {row[0]: row[1:] for row in cells}


def test_drift_is_a_table_with_a_column_a_stage(settings):
    answer = peso("data", "drift", *settings)
    rows = rows_of(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert (rows["new users"], rows["returning users"], rows["dormant users"]) == (["0"], ["1"], ["0"])
    assert (rows["new items"], rows["new item share"], rows["user overlap"]) == (["1"], ["0.3333"], ["0.5000"])
    assert rows["transitions own"] == ["0.0000 / 0.0000"]
    assert "a sample" not in answer.out
    assert "a sample: at most 1 users" in peso("data", "drift", *settings, "dataset.sample_users=1").out


def test_drift_as_json(settings):
    document = peso("data", "drift", "--json", *settings).document
    assert document["dataset"] == "toy"
    (row,) = document["stages"]
    assert (row["stage"], row["returning_users"], row["new_item_share"]) == (2, 1, 1 / 3)
    assert row["popularity"] == {"recall@10": 0.0, "ndcg@10": 0.0}


def test_drift_of_the_built_in_world():
    rows = rows_of(peso("data", "drift", *WORLD).out)
    assert len(rows["popularity shift"]) == 2
    assert "unknown" not in str(rows)


@pytest.mark.parametrize("command", ["stats", "drift", "examples", "export"])
def test_a_dataset_without_semantic_ids_says_how_to_make_them(tmp_path, command):
    root = write_stages(tmp_path / "toy", STAGES)
    settings = ("dataset=built", "dataset.name=toy", f"dataset.path={root}")
    refused(peso("data", command, *settings), "peso tokenize dataset=built dataset.name=toy")


def test_an_export_is_used_as_it_says(settings, tmp_path):
    target = tmp_path / "new"
    answer = peso("data", "export", "--output", target, "--json", *settings)
    assert answer.document["stages"] == [1, 2]
    assert answer.document["settings"][-1] == "dataset.catalog=visible"
    before, after = (peso("data", "stats", "--json", *s).document for s in (settings, answer.document["settings"]))
    assert before == after
    assert read_released(target, "toy").catalog.titles == {"p": "A pen"}
    lines = [peso("data", "examples", "--stage", 2, *s).out for s in (settings, answer.document["settings"])]
    assert lines[0] == lines[1] != ""
    assert json.loads(lines[0].splitlines()[0]) == {"user": "bob", "history": ["r", "q", "p"], "target": "p"}


def test_an_export_prints_where_it_went_and_refuses_to_go_there_again(settings, tmp_path):
    target = tmp_path / "new"
    assert (
        f"{target}: stages 1, 2; to use it: dataset=released"
        in peso("data", "export", "--output", target, *settings).out
    )
    refused(peso("data", "export", "--output", target, *settings), f"{target}", "is there already")
