import json

import pytest
from commands.running import WORLD, peso, refused
from worlds import write_released

from peso_cli.config.compose import compose
from peso_cli.data.examples import examples
from peso_cli.data.open import open_dataset

INDEX = {f"i{n}": [f"<a_{n}>", "<b_0>"] for n in range(6)}
BLOCKS = {
    1: {
        "zoë": {"previous_block": ["i0"], "current_block": ["i1", "i2", "i3", "i4"]},
        "few": {"previous_block": [], "current_block": ["i1", "i5"]},
    },
    3: {"zoë": {"previous_block": ["i0", "i1"], "current_block": ["i2", "i3", "i4"]}},
}


@pytest.fixture
def released(tmp_path):
    """The overrides of a dataset that lacks its stages 1 and 3."""
    folder = write_released(tmp_path, INDEX, BLOCKS, {"i0": {"title": "A title"}})
    return ("dataset=released", "dataset.name=toy", f"dataset.path={folder}")


def rows_of(text):
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]
    return {row[0]: row[1:] for row in cells}


def test_statistics_of_a_dataset_that_lacks_stages(released):
    answer = peso("data", "stats", *released)
    rows = rows_of(answer.out)
    assert rows["users"] == ["unknown", "2", "unknown", "1", "unknown"]
    assert rows["new users"] == ["unknown", "1", "unknown", "0", ""]
    assert rows["interactions"] == ["unknown", "6", "unknown", "3", "unknown"]
    assert rows["mean length"] == ["unknown", "3.00", "unknown", "3.00", ""]
    assert rows["sparsity"] == ["unknown", "0.4000", "unknown", "0.0000", ""]
    assert rows["train"] == ["unknown", "2", "unknown", "1", ""]
    assert rows["users without examples"] == ["unknown", "1", "unknown", "0", ""]
    assert "catalog: 6 items, 2 levels of [6, 1] codes, 6 distinct semantic IDs, 1 titles" in answer.out


def test_statistics_of_a_sample_say_so(released):
    answer = peso("data", "stats", *released, "dataset.sample_users=1")
    rows = rows_of(answer.out)
    assert rows["users"] == ["unknown", "1", "unknown", "1", "unknown"]
    assert rows["users without examples"] == ["unknown", "0", "unknown", "0", ""]
    assert "a sample: at most 1 users of each stage take part" in answer.out
    assert "a sample" not in peso("data", "stats", *released).out


@pytest.mark.parametrize("setting", ["sample_users=0", "sample_users=2.5", "sample_users=many", "sample_seed=-1"])
def test_a_sample_that_makes_no_sense_is_refused(released, setting):
    refused(peso("data", "stats", *released, f"dataset.{setting}"), f"peso: dataset.{setting}: ")


def test_statistics_as_json(released):
    document = peso("data", "stats", "--json", *released).document
    assert document["dataset"] == "toy"
    assert [row["stage"] for row in document["stages"]] == [1, 2, 3, 4]
    assert document["stages"][0]["users"] is None
    assert (document["stages"][1]["users"], document["stages"][1]["test"]) == (2, 1)
    assert document["total"] == {"users": None, "items": None, "interactions": None}


def test_statistics_of_the_built_in_world():
    document = peso("data", "stats", "--json", *WORLD).document
    assert len(document["stages"]) == 3
    assert document["total"]["interactions"] == sum(row["interactions"] for row in document["stages"])
    assert document["total"]["users"] == 60


def lines_of(*arguments):
    answer = peso("data", "examples", *arguments)
    assert (answer.code, answer.err) == (0, "")
    return [json.loads(line) for line in answer.out.splitlines()]


def test_examples_are_lines_of_user_history_and_target(released):
    assert lines_of("--stage", 2, "--split", "train", *released) == [
        {"user": "zoë", "history": ["i0"], "target": "i1"},
        {"user": "zoë", "history": ["i0", "i1"], "target": "i2"},
    ]
    assert lines_of("--stage", 2, "--split", "valid", *released) == [
        {"user": "zoë", "history": ["i0", "i1", "i2"], "target": "i3"}
    ]
    assert lines_of("--stage", 2, "--split", "test", "prompt.window=2", *released) == [
        {"user": "zoë", "history": ["i2", "i3"], "target": "i4"}
    ]
    assert lines_of("--stage", 2, "--split", "next", *released) == [{"user": "zoë", "history": ["i0"], "target": "i1"}]
    assert lines_of("--stage", 4, "--split", "next", "prompt.window=1", *released) == [
        {"user": "zoë", "history": ["i1"], "target": "i2"}
    ]
    assert "zoë" in peso("data", "examples", "--stage", 2, *released).out


def test_without_options_they_are_stage_1s_training_examples():
    lines = lines_of(*WORLD)
    dataset = open_dataset(compose(WORLD).config.dataset)
    assert len(lines) == len(examples(dataset.block(1), "train", 20))


@pytest.mark.parametrize("split", ["train", "valid", "test", "next"])
def test_one_users_are_those_of_all_that_are_the_users(split):
    every = lines_of("--stage", 2, "--split", split, *WORLD)
    user = every[-1]["user"]
    mine = lines_of("--stage", 2, "--split", split, "--user", user, *WORLD)
    assert mine == [line for line in every if line["user"] == user] != []


def test_a_user_with_too_few_events_has_none(released):
    assert lines_of("--stage", 2, "--user", "few", *released) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--stage", 5], ["stage=5", "toy has stages 1 to 4"]),
        (["--stage", 0], ["stage=0"]),
        (["--stage", 1], ["stage 1 needs", "toy.all.block_0.json", "missing"]),
        (["--stage", 2, "--split", "all"], ["--split all", "train, valid or test, or next"]),
        (["--stage", 2, "--user", "zoe"], ["--user zoe", "stage 2", "zoë"]),
    ],
)
def test_what_is_not_there_is_one_line(released, arguments, parts):
    refused(peso("data", "examples", *arguments, *released), *parts)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    where = f"dataset.path={tmp_path / 'nowhere'}"
    refused(peso("data", "stats", "dataset=amazon_games", where), "nowhere: no such folder")
    refused(peso("data", "stats", "dataset=amazon_games"), "dataset.path has no value")
    refused(peso("data", "stats", "dataset=amazon_games", f"dataset.path={tmp_path}"), "no file is named")
