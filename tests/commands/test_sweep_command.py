import json
from pathlib import Path

import pytest
from commands.running import SMALL, learnt, peso, refused
from tracking.wandb_files import read_run

WORDS = (*SMALL, "stage=2", "trainer.epochs=1")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A folder with a sweep of two methods and two strengths, done; only to be read."""
    folder = tmp_path_factory.mktemp("swept")
    answer = peso("sweep", *WORDS, "method=single,peso", "regularizer.strength=1,9", f"output={folder}")
    assert answer.code == 0, answer.err
    assert "3 runs (4 points of the grid), 0 done already" in answer.err
    assert "regularizer.strength: 2 of 4 points have no such setting" in answer.err
    assert "3 of 3: " in answer.err
    assert "3 done" in answer.out
    return folder


def ledger(output: Path) -> dict:
    (path,) = output.glob("sweeps/*/ledger.json")
    return json.loads(path.read_text())


def marks(output: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in output.rglob("DONE")}


def test_a_sweep_trains_each_stage_once(swept):
    assert ledger(swept)["states"] == {"done": 3, "running": 0, "failed": 0, "missing": 0}
    stages = sorted(str(path.parent.relative_to(swept)) for path in swept.rglob("DONE"))
    assert len(stages) == 4
    assert sum("/base/" in stage for stage in stages) == 1


def test_the_same_command_runs_only_what_is_missing(swept):
    before = marks(swept)
    more = ("method=single,peso", "regularizer.strength=1,9", f"output={swept}")
    answer = peso("sweep", *WORDS, *more)
    assert answer.code == 0
    assert "3 runs (4 points of the grid), 3 done already" in answer.err
    assert marks(swept) == before


def test_a_run_of_a_sweep_is_the_run_that_train_would_make(swept, tmp_path):
    assert peso("train", *WORDS, "method=single", f"output={tmp_path}").code == 0
    (alone,) = tmp_path.glob("synthetic/tiny/single/*/seed_1/stage_2")
    assert learnt(alone) == learnt(swept / alone.relative_to(tmp_path))


def test_a_plan_shows_how_runs_stand_and_carries_out_none(swept):
    before = marks(swept)
    answer = peso("sweep", *WORDS, "method=single,l2", f"output={swept}", "--plan", "--json")
    assert answer.code == 0
    assert [(run["run"], run["state"]) for run in answer.document["runs"]] == [("single", "missing"), ("l2", "missing")]
    assert marks(swept) == before


def test_one_that_fails_is_kept_and_stops_no_other(tmp_path):
    # A decoding that can't return what is asked for shows when the run is carried out.
    answer = peso("sweep", *WORDS, "method=single", "decoding.beams=30,3", f"output={tmp_path}")
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("peso: 1 failed; when that is mended, the same command")
    (failed,) = [run for run in ledger(tmp_path)["runs"] if run["state"] == "failed"]
    assert "decoding.beams=3: must be at least 10" in failed["error"]
    assert "decoding.beams=3" in Path(failed["log"]).read_text()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("method=pesso,single",), ("method=pesso: no such choice", "peso")),
        (("regularizer.strenth=1,2",), ("unknown key 'regularizer.strenth'",)),
        (("launcher=jobib",), ("launcher=jobib: no such choice", "joblib")),
        (("launcher=joblib", "launcher.jobs=0"), ("launcher.jobs=0: ",)),
        (("launcher.threads=two",), ("launcher.threads=two: ",)),
        (("launcher=basic", "launcher.jobs=2"), ("unknown key 'launcher.jobs'",)),
        (("seed=interval(1,2)",), ("interval",)),
        (("stage=9",), ("stage=9: ",)),
        (("--launcher",), ("no such option",)),
    ],
)
def test_wrong_words_are_refused_in_a_line_before_any_run(words, parts, tmp_path):
    refused(peso("sweep", *SMALL, *words, f"output={tmp_path / 'outputs'}"), *parts)
    assert not list(tmp_path.iterdir())


def test_other_commands_know_no_launcher(tmp_path):
    refused(
        peso("train", *SMALL, "launcher=joblib", f"output={tmp_path}"), "only peso sweep takes settings of launcher"
    )


def test_a_grid_of_an_experiment_is_none_of_a_single_run(tmp_path):
    words = ("train", "experiment=strength", "regularizer.strength=1", f"output={tmp_path / 'outputs'}")
    refused(peso(*words), "experiment=strength goes over values of method, evaluation.split, seed", "peso sweep")


def test_what_a_sweep_trains_carries_its_name_in_wandb(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_TAGS", raising=False)
    words = (*WORDS, "tracker=wandb", "method=single,l2", f"output={tmp_path}")
    assert peso("sweep", *words).code == 0
    (folder,) = tmp_path.glob("sweeps/*")
    runs = [read_run(path.parent) for path in tmp_path.rglob("DONE")]
    assert {run.tags for run in runs} == {(f"sweep-{folder.name}",)}
    assert {run.config["method"]["name"] for run in runs} == {"single", "l2"}
