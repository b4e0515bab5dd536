"""Numbers that aren't finite, from wherever they come: no step, no figure and no silence; the last good state stays."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from commands.running import SMALL, Answer, files_of, peso, refused
from pretrained import save_pretrained
from safetensors.torch import load_file, save_file

from peso_cli.config.compose import compose
from peso_cli.errors import RunError
from peso_cli.reports.collected import collect
from peso_cli.stages import open_run
from peso_cli.sweeps.searches.trials import validation
from peso_cli.training.checkpoints import load_checkpoint

TINY = (
    *SMALL,
    "dataset.users=20",
    "dataset.items=30",
    "dataset.stages=2",
    "backbone.hidden=16",
    "backbone.feed_forward=16",
    "decoding.beams=10",
    "trainer.epochs=1",
    "trainer.later_epochs=1",
    "stage=2",
)
ENDLESS = ("method=peso", "regularizer.strength=1e300")


def train(output: Path, *more: str) -> Answer:
    return peso("train", *TINY, f"output={output}", *more)


def line_of(answer: Answer) -> str:
    """The one line with which a command failed."""
    assert answer.code == 1, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    (line,) = [line for line in answer.err.splitlines() if line.startswith("peso: ")]
    return line


def only(output: Path, pattern: str) -> Path:
    (found,) = output.glob(pattern)
    return found


@pytest.fixture(scope="module")
def diverged(tmp_path_factory) -> tuple[Path, Path, str]:
    """An output folder with one method that trained well and one whose penalty is no number; only to be read."""
    output = tmp_path_factory.mktemp("numerics") / "outputs"
    assert train(output, "method=single").code == 0
    line = line_of(train(output, *ENDLESS))
    return output, only(output, "synthetic/tiny/peso/*/seed_1/stage_2"), line


# A stage that diverges


def test_the_line_says_where_what_and_how_to_mend(diverged):
    _, folder, line = diverged
    assert line.startswith(f"peso: {folder}: step 1: the ")
    assert "penalty" in line
    assert "the step was not taken. Lower regularizer.strength" in line


def test_what_is_known_and_the_last_good_state_stay_and_nothing_is_finished(diverged):
    _, folder, _ = diverged
    lines = [json.loads(text, parse_constant=pytest.fail) for text in (folder / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["event"] == "diverged"
    assert lines[-1]["step"] == 1
    assert lines[-1]["what"].startswith("penalty")
    assert math.isfinite(lines[-1]["loss"])
    assert lines[-1]["gradient_norm"] in ("nan", "inf")
    mark = json.loads((folder / "DIVERGED").read_text())
    assert mark == {"format": 1, "why": mark["why"], **{k: v for k, v in lines[-1].items() if k != "event"}}
    kept = load_checkpoint(folder / "checkpoint.safetensors")
    assert kept.progress["step"] == 0
    assert kept.progress["history"][0]["validation_loss"] == kept.progress["best_loss"]
    assert all(torch.isfinite(t).all() for part in ("model", "best") for t in kept.parts[part].values())
    assert not {"DONE", "metrics.json", "predictions.parquet"} & files_of(folder).keys()


def test_the_same_command_says_what_happened_and_trains_nothing(diverged):
    output, folder, line = diverged
    before = files_of(output)
    again = line_of(train(output, *ENDLESS))
    assert again.startswith(f"peso: {folder}: diverged when it was last trained, and would again; step 1: the ")
    for part in (line.removeprefix(f"peso: {folder}: "), f"remove {folder / 'DIVERGED'}", "peso train --repair"):
        assert part in again
    assert files_of(output) == before


def test_runs_tables_and_reports_know_it_as_diverged_and_take_nothing_of_it(diverged):
    output, _, _ = diverged
    states = {
        (row["method"], row["stage"]): row["state"] for row in peso("runs", "--output", output, "--json").document
    }
    assert states == {("base", 1): "finished", ("single", 2): "finished", ("peso", 2): "diverged"}
    assert {record.place.method for record in collect(output, pytest.fail)} == {"base", "single"}
    answer = peso("tables", "main", "--output", output, "--format", "csv")
    assert answer.code == 0
    assert ",single," in answer.out
    assert ",peso," not in answer.out


def test_no_other_command_takes_it_for_trained(diverged):
    output, folder, _ = diverged
    words = (*TINY, *ENDLESS, f"output={output}")
    refused(peso("evaluate", *words), "stage 2 of peso isn't trained", str(folder))


def test_who_removes_the_mark_goes_on_from_the_last_good_state_to_the_same_end(copied_divergence):
    output, folder = copied_divergence
    before, kept = files_of(folder), load_checkpoint(folder / "checkpoint.safetensors")
    (folder / "DIVERGED").unlink()
    answer = train(output, *ENDLESS)
    assert f"stage 2: resuming {folder}" in answer.err
    line_of(answer)
    after, again = files_of(folder), load_checkpoint(folder / "checkpoint.safetensors")
    assert {name: after[name] for name in ("DIVERGED", "log.jsonl")} == {
        n: before[n] for n in ("DIVERGED", "log.jsonl")
    }
    assert again.progress == kept.progress
    assert all(torch.equal(kept.parts["model"][name], tensor) for name, tensor in again.parts["model"].items())


def test_repair_moves_it_aside_and_trains_it_anew(copied_divergence):
    output, folder = copied_divergence
    before = files_of(folder)
    answer = train(output, *ENDLESS, "--repair")
    assert f"stage 2: {folder}: diverged when it was last trained" in answer.err
    assert f"stage 2: training {folder}" in answer.err
    line_of(answer)
    assert files_of(folder.with_name("stage_2.damaged-1")) == before


@pytest.fixture
def copied_divergence(diverged, tmp_path) -> tuple[Path, Path]:
    """A copy that a test may change, at the same depth."""
    output = Path(shutil.copytree(diverged[0], tmp_path / "outputs"))
    return output, only(output, "synthetic/tiny/peso/*/seed_1/stage_2")


# Other poisons


@pytest.mark.parametrize("word", ["trainer.learning_rate=inf", "trainer.learning_rate=1e300", "trainer.clip_norm=nan"])
def test_settings_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path, word):
    key = word.partition("=")[0]
    refused(train(tmp_path / "outputs", word), key)
    assert not (tmp_path / "outputs").exists()


def test_a_first_stage_that_diverges_is_told_by_every_later_one_and_none_begins(tmp_path):
    words = ("trainer.weight_decay=1e300", "method=single")
    line = line_of(train(tmp_path, *words))
    folder = only(tmp_path, "synthetic/tiny/base/*/seed_1/stage_1")
    assert line.startswith(f"peso: {folder}: step 2: the loss is nan (gradient norm nan); the step was not taken.")
    # A state beyond all numbers is none to go on from.
    assert not (folder / "checkpoint.safetensors").exists()
    assert "diverged when it was last trained" in line_of(train(tmp_path, *words))
    assert not list(tmp_path.glob("synthetic/tiny/single"))


def test_a_pretrained_model_with_a_weight_that_is_not_finite_is_never_trained(tmp_path):
    model = save_pretrained(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    words = [word for word in TINY if not word.startswith("backbone")]
    more = ("backbone=smollm2_135m", f"backbone.model={model}", "prompt=instruct", f"output={tmp_path / 'outputs'}")
    refused(peso("train", *words, *more), f"backbone.model={model}: its logits are not finite numbers")
    assert not files_of(tmp_path / "outputs")


# Sweeps and searches


def test_a_sweep_counts_it_as_failed_goes_on_and_doesnt_train_it_twice(diverged, tmp_path):
    words = ("sweep", *TINY, "method=peso", "regularizer.strength=1e300,1", f"output={tmp_path}", "--json")
    for said in ("step 1: the ", "diverged when it was last trained"):
        answer = peso(*words)
        assert answer.code == 1
        document = json.loads(answer.out)
        assert document["states"] == {"done": 1, "running": 0, "failed": 1, "missing": 0}
        (failed,) = [run for run in document["runs"] if run["state"] == "failed"]
        assert "1e+300" in failed["run"] or "1e300" in failed["run"]
        assert said in failed["error"]
    later = [record for record in collect(tmp_path, pytest.fail) if record.place.stage > 1]
    assert [record.settings["regularizer.strength"] for record in later] == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_search_takes_no_figure_that_is_not_finite(diverged, tmp_path, value):
    output = Path(shutil.copytree(diverged[0], tmp_path / "outputs"))
    run = open_run(compose([*TINY, "method=single", f"output={output}"]))
    path = run.artifact(2).folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["evaluated"]["2"]["valid"] = {**metrics["evaluated"]["2"]["test"], "ndcg@10": value}
    path.write_text(json.dumps(metrics))
    with pytest.raises(RunError, match="lacks figures of validation users"):
        validation(run, 2)
