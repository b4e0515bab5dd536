"""Runs that are stopped or killed at any instant, and started again until they are done."""

import itertools
import os
import random
import signal
import time

import pytest
from commands.running import left
from forked import FIVE, Death, start
from tracking.wandb_files import read_run

COMMAND = ("train", "stage=all", "method=peso", *FIVE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run that nothing disturbed leaves, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder, folder / "warm", "config").end() == 0
    begun = time.monotonic()
    run = start(folder, folder / "log", *COMMAND)
    assert run.end() == 0, run.log.read_text()
    return left(folder / "outputs"), time.monotonic() - begun


def attempt(folder, seconds, number):
    """Let a run go on until its end, or for so many seconds and then until a signal ends it; return its exit code."""
    run = start(folder, folder / "log", *COMMAND)
    if not run.ends_within(seconds):
        os.kill(run.process.pid, number)
    return run.end()


KILL, ASK = (signal.SIGKILL,), (signal.SIGINT, signal.SIGTERM)
ENDS = {KILL: {-signal.SIGKILL}, ASK: {130, -signal.SIGTERM}}


@pytest.mark.parametrize(
    ("signals", "times"),
    [(KILL, 3), pytest.param(KILL, 40, marks=pytest.mark.long), pytest.param(ASK, 20, marks=pytest.mark.long)],
)
def test_a_run_stopped_at_random_instants_ends_as_one_never_stopped(undisturbed, tmp_path, signals, times):
    whole, seconds = undisturbed
    chance, stopped, runs = random.Random(times), 0, itertools.count()
    while stopped < times:
        folder = tmp_path / str(next(runs))
        folder.mkdir()
        while code := attempt(folder, chance.uniform(0, seconds) if stopped < times else 300, chance.choice(signals)):
            assert code in ENDS[signals], (folder / "log").read_text()
            stopped += 1
        assert left(folder / "outputs") == whole


def test_tracked_curves_of_a_killed_run_are_those_of_one_never_stopped(tmp_path):
    found = []
    for death in (None, Death(1, 5, tmp_path / "died")):
        folder = tmp_path / str(death is not None)
        folder.mkdir()
        command = ("train", "stage=1", *FIVE, "tracker=wandb", f"output={folder / 'outputs'}")
        codes = [start(folder, folder / "log", *command, death=death).end()]
        if death:
            codes.append(start(folder, folder / "log", *command, death=death).end())
        assert codes == ([-9, 0] if death else [0]), (folder / "log").read_text()
        (stage,) = folder.glob("outputs/*/*/*/*/*/stage_1")
        tracked = read_run(stage)
        found.append((tracked.points("step"), tracked.points("stage"), tracked.axes, tracked.exit_code))
    assert found[0][0]
    assert found[1] == found[0]
