"""Sweeps whose launcher and worker are killed, by every engine.

A few runs each, to be quick; with --long 24 (some minutes).
"""

import random
import time

import pytest
from sweeps.small_sweeps import Sweep, kill

WORDS = ("stage=2", "method=single,peso,replay")
TWO = ("launcher.jobs=2", "launcher.threads=1")
ENGINES = {
    "basic": ("launcher=basic", "launcher.threads=1"),
    "joblib": ("launcher=joblib", *TWO),
    "submitit_local": ("launcher=submitit_local", *TWO),
    "ray": ("launcher=ray", *TWO),
}


@pytest.fixture(scope="module")
def words(request) -> tuple[str, ...]:
    return (*WORDS, f"seed=range(1,{9 if request.config.getoption('--long') else 3})")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, words) -> Sweep:
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"), words)
    process = sweep.start(*ENGINES["basic"])
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return sweep


@pytest.mark.parametrize(
    "engine", ["basic", "joblib", *(pytest.param(name, marks=pytest.mark.long) for name in ("submitit_local", "ray"))]
)
def test_a_sweep_that_was_killed_ends_as_one_that_was_not(undisturbed, words, engine, tmp_path):
    sweep, chance = Sweep(tmp_path, words), random.Random(engine)
    launcher = sweep.start(*ENGINES[engine])
    worker = sweep.wait_for_a_run()
    time.sleep(chance.uniform(0, 3))
    kill(launcher.pid)
    for process in {worker, *sweep.running()[:1]}:
        kill(process)
    # Not until its output ends: workers without a run may hold that open until they have been idle for long enough.
    launcher.wait()
    before = sweep.finished()

    again = sweep.start(*ENGINES[engine])
    out, _ = again.communicate(timeout=600)
    assert again.returncode == 0, out
    assert sweep.document() == undisturbed.document()
    assert sweep.artifacts() == undisturbed.artifacts()
    # What was finished stays as it is; nothing but what was killed is taken up a second time.
    assert before.items() <= sweep.finished().items()
    assert all(count == 1 for folder, count in sweep.begun().items() if folder in before)
    assert sum(sweep.begun().values()) - len(sweep.begun()) <= 2
    assert len(sweep.begun()) == len(sweep.artifacts())
