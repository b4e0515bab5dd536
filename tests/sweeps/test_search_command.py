"""`peso sweep search=...` from end to end on the small world: choice, resumption after a kill, and wrong input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands.running import SMALL, peso, refused

from peso_cli.artifacts import Artifact
from peso_cli.sweeps.searches.study import find_study

STRENGTH = "regularizer.strength=tag(log,interval(0.1,1e6))"
WORLD = (*SMALL, "dataset.stages=2", "trainer.epochs=1", "trainer.later_epochs=1", "method=peso")
SEARCH = ("search=tpe", STRENGTH, "search.trials=2", "search.batch=1", "search.random=1")


def arguments(output: Path, *words: str) -> tuple[str, ...]:
    return ("sweep", *WORLD, f"output={output}", *words)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """An output folder with a search that ran without interruption; only to be read."""
    output = tmp_path_factory.mktemp("searched")
    answer = peso(*arguments(output, *SEARCH), "--json")
    assert answer.code == 0, answer.err
    return output, answer.document


def trials_of(output: Path):
    (path,) = output.glob("sweeps/*/study.log")
    return [(t.number, t.state.name, t.params, t.values) for t in find_study(path, "synthetic").trials]


def metrics_of(output: Path):
    return {
        path: json.loads(path.read_text()) for path in output.glob("synthetic/*/peso/*/seed_1/stage_2/metrics.json")
    }


def test_what_is_chosen_has_the_highest_figure_of_validation_users(searched):
    output, document = searched
    (found,) = document["searches"]
    figures = {trial["number"]: trial["validation"]["ndcg@10"] for trial in found["trials"]}
    (chosen,) = found["chosen"]
    assert figures[chosen["number"]] == max(figures.values())
    written = sorted(m["evaluated"]["2"]["valid"]["ndcg@10"] for m in metrics_of(output).values())
    assert sorted(figures.values()) == written
    (path,) = output.glob("sweeps/*/search.json")
    assert json.loads(path.read_text()) == document


def test_the_command_of_the_chosen_trial_leads_to_its_artifacts_and_figures_of_test_users(searched):
    output, document = searched
    (chosen,) = document["searches"][0]["chosen"]
    _, *words = chosen["command"].split()
    before = sorted(output.rglob("DONE"))
    answer = peso(*words, "--json")
    assert sorted(output.rglob("DONE")) == before
    figures = answer.document["stages"]["2"]["evaluated"]["2"]["test"]
    assert chosen["test"]["ndcg@10"] == figures["ndcg@10"]


def test_figures_of_test_users_are_shown_and_have_no_say(searched, tmp_path):
    output, document = searched
    copied = Path(shutil.copytree(output, tmp_path / "outputs"))
    for number, (path, metrics) in enumerate(metrics_of(copied).items()):
        metrics["evaluated"]["2"]["test"]["ndcg@10"] = 0.9 - number / 10
        path.write_text(json.dumps(metrics))
        Artifact(path.parent).finish()
    for path in copied.glob("sweeps/*/study.log"):
        path.unlink()
    (again,) = peso(*arguments(copied, *SEARCH), "--json").document["searches"]
    (before,) = document["searches"]
    assert again["trials"] == before["trials"]
    (then,), (now,) = before["chosen"], again["chosen"]
    assert now["number"] == then["number"]
    assert now["test"]["ndcg@10"] >= 0.8 > then["test"]["ndcg@10"]


def test_a_search_that_is_killed_goes_on_where_it_was_and_ends_the_same(searched, tmp_path):
    reference, _ = searched
    code = "from peso_cli.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments(tmp_path, *SEARCH)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
    )
    # A second trial has begun where a third stage has: one is shared.
    while len(list(tmp_path.rglob("lineage.json"))) < 3 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("DONE")}
    assert len(finished) == 2
    assert peso(*arguments(tmp_path, *SEARCH)).code == 0
    assert trials_of(tmp_path) == trials_of(reference)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(list(tmp_path.rglob("DONE"))) == 3


def test_a_plan_of_a_search_shows_its_trials_and_writes_nothing(searched, tmp_path):
    output, document = searched
    answer = peso(*arguments(output, *SEARCH), "--plan", "--json")
    assert answer.document == document
    fresh = peso(*arguments(tmp_path / "none", *SEARCH), "--plan")
    assert fresh.code == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((STRENGTH,), ("interval",)),
        (("search=tpe",), ("nothing to search",)),
        (("search=tpe", "seed=1,2"), ("nothing to search",)),
        (("search=tpe", STRENGTH, "search.objectives=[ndgc@10]"), ("ndgc@10", "did you mean ndcg@10")),
        (("search=tpe", STRENGTH, "search.objectives=[ndcg@20]"), ("ndcg@20",)),
        (("search=tpe", STRENGTH, "search.objectives=[]"), ("search.objectives",)),
        (("search=tpe", STRENGTH, "search.objectives=[ndcg@10,-ndcg@10]"), ("twice",)),
        (("search=tpe", STRENGTH, "search.trials=0"), ("search.trials=0",)),
        (("search=tpe", STRENGTH, "search.prune=true", "search.objectives=[ndcg@10,-seconds]"), ("search.prune",)),
        (("search=tpe", "regularizer.strength=interval(5,1)"), ("interval(5,1)",)),
        (("search=tpe", "regularizer.strength=tag(log,interval(0,1))"), ("above 0",)),
        (("search=tpe", "regularizer.strength=tag(loud,interval(0,1))"), ("loud",)),
        (("search=tpe", "regularizer.strength=interval(-1,1)"), ("regularizer.strength=-1.0",)),
        (("search=tpe", "regularizer.strenght=interval(0,1)"), ("regularizer.strenght", "did you mean strength")),
        (("search=tpe", "method=glob(*)"), ("method",)),
        (("search=tpe", "method=single,pezo"), ("method=pezo", "peso")),
        (("search=tpe", STRENGTH, "seed=interval(1,2)"), ("seed",)),
        (("search=tpe", STRENGTH, "stage=1,2"), ("stage=1,2",)),
        (("search=tpe", STRENGTH, "variant=mine"), ("variant",)),
        (("search=tpe", STRENGTH, "evaluation.split=test"), ("validation",)),
        (("search=tpe", STRENGTH, "decoding.beams=3"), ("decoding.beams=3",)),
        (("search=none", "search.trials=3", "method=peso"), ("search.trials",)),
        (("search=tpa", STRENGTH), ("search=tpa", "tpe")),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_a_line(tmp_path, words, parts):
    output = tmp_path / "outputs"
    refused(peso(*arguments(output, *words)), *parts)
    assert not output.exists()


def test_without_its_package_a_search_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    refused(peso(*arguments(tmp_path, *SEARCH)), "search=tpe", "peso[optuna]")


def test_settings_of_a_search_are_no_settings_of_a_run(tmp_path):
    refused(peso("train", "search.trials=3", f"output={tmp_path}"), "only peso sweep")
