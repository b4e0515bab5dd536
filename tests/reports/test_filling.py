"""Commands that fill gaps lead back to the settings of the run that they are like."""

import shlex

import pytest
from artifact_makers import made, settings

from peso_cli.config.compose import compose
from peso_cli.reports.collected import collect
from peso_cli.reports.filling import scoring_gap, train_command, training_gap

METHOD = "# @package _global_\ndefaults:\n  - override /regularizer: l2\nmethod:\n  name: mine\ntrainer:\n  epochs: 3\n"


def record_of(output, config_dir=None):
    (record,) = collect(output, pytest.fail, config_dir)
    return record


def test_a_gap_is_the_command_that_is_printed(tmp_path):
    made(tmp_path, "peso", words=("regularizer.strength=10",))
    gap = training_gap(record_of(tmp_path), 2, 3)
    assert (gap.verb, gap.config_dir, gap.needs_folder) == ("train", None, False)
    assert shlex.split(str(gap)) == ["peso", "train", *gap.words]
    assert train_command(record_of(tmp_path), 2, 3) == str(gap)


def test_validation_users_of_ones_own_stage_are_scored(tmp_path):
    made(tmp_path, "peso")
    gap = scoring_gap(record_of(tmp_path), 1, "[2,3]", split="valid")
    assert (gap.verb, gap.words[0], gap.words[-1]) == ("evaluate", "stage=[2,3]", "evaluation.split=valid")
    assert not any(word.startswith("evaluation.on") for word in gap.words)
    words = scoring_gap(record_of(tmp_path), 1, "3", (1, 2)).words
    assert words[-1] == "evaluation.on=[1,2]"


def test_where_runs_are_followed_goes_with_them(tmp_path):
    made(tmp_path, "peso", words=("tracker=wandb", "tracker.project=ours"))
    assert "tracker.project=ours" in training_gap(record_of(tmp_path), 1, 3).words
    made(tmp_path / "other", "peso", words=("tracker=none",))
    assert "tracker=none" in training_gap(record_of(tmp_path / "other"), 1, 3).words


def test_the_settings_of_a_hybrids_parts_go_with_it(tmp_path):
    words = ("backbone.generative.settings=['trainer.epochs=3','backbone.hidden=64']", "backbone.steps=10")
    made(tmp_path, "hybrid", words=words, backbone="hybrid")
    gap = training_gap(record_of(tmp_path), 1, 3)
    found = compose(gap.words)
    assert found.config.backbone == compose(["method=hybrid", *words]).config.backbone
    assert found.config.parts["generative"].config.trainer.epochs == 3


def test_a_folder_of_ones_own_is_composed_with(tmp_path):
    own, output = tmp_path / "own", tmp_path / "outputs"
    (own / "method").mkdir(parents=True)
    (own / "method/mine.yaml").write_text(METHOD)
    path = made(output, "single", words=("regularizer=l2", "trainer.epochs=3", "trainer.later_epochs=2"))
    mine = path.parents[2].rename(output / "synthetic/tiny/mine") / "v1/seed_1/stage_2"
    (mine / "lineage.json").write_text((mine / "lineage.json").read_text().replace('"single"', '"mine"'))
    (mine / "config.yaml").write_text(settings("method=single", "regularizer=l2").replace("name: single", "name: mine"))

    known = training_gap(record_of(output, own), 1, 3)
    assert known.config_dir == own
    assert not any(word.startswith("regularizer") for word in known.words)
    unknown = training_gap(record_of(output), 1, 3)
    assert unknown.needs_folder
    assert str(unknown).endswith("--config-dir FOLDER")

    # Without the folder it isn't known what its files set, so that everything is told.
    first, second = (compose(gap.words, own).plain for gap in (known, unknown))
    assert first == second
    assert first["trainer"]["epochs"] == compose(["method=single"]).plain["trainer"]["epochs"] != 3
