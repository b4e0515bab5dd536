import pytest
from commands.running import peso, refused

from peso_cli.config.compose import SWEEP_GROUPS, compose, conf_folder


def rows_of(text):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]


def test_every_value_is_shown_with_where_it_comes_from():
    rows = rows_of(peso("config", "stage=3", "method=l2", "trainer.epochs=5").out)
    assert ["stage", "3", "override stage=3"] in rows
    assert ["trainer.epochs", "5", "override trainer.epochs=5"] in rows
    assert ["method.name", "'l2'", "method/l2"] in rows
    assert ["regularizer.unsquared", "False", "regularizer/l2"] in rows
    assert ["variant", "None", "config"] in rows


def test_every_group_is_shown_with_its_choices():
    rows = rows_of(peso("config", "method=l2").out)
    assert ["memory", "current", "all, current, replay"] in rows
    assert ["method", "l2"] in [row[:2] for row in rows]
    assert ["experiment", "-"] in [row[:2] for row in rows]
    groups = {path.parent.name for path in conf_folder().glob("*/*.yaml")} - set(SWEEP_GROUPS)
    assert {row[0] for row in rows} >= groups


def test_json_holds_the_same():
    document = peso("config", "method=single", "seed=3", "--json").document
    composed = compose(["method=single", "seed=3"])
    assert document["config"] == composed.plain
    assert document["choices"] == composed.choices
    assert document["origins"] == composed.origins
    assert document["options"]["memory"] == ["all", "current", "replay"]


def test_ones_own_folder_is_among_the_choices(tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/mine.yaml").write_text("defaults:\n  - all\n")
    answer = peso("config", "memory=mine", "--config-dir", tmp_path)
    assert ["memory", "mine", "all, current, mine, replay"] in rows_of(answer.out)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["sede=1"], ["'sede'", "did you mean seed?"]),
        (["dataset=amazon_games"], ["dataset.path has no value"]),
        (["--config-dir", "/nowhere/at/all"], ["--config-dir /nowhere/at/all: no such folder"]),
    ],
)
def test_what_is_wrong_is_one_line(arguments, parts):
    refused(peso("config", *arguments), *parts)
