"""Runs that are killed (SIGKILL) at any instant, and started again until they are done."""

import random
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


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.long)])
def test_a_run_killed_at_random_instants_ends_as_one_never_stopped(undisturbed, tmp_path, kills):
    whole, seconds = undisturbed
    chance, killed, folder = random.Random(kills), 0, tmp_path / "0"
    folder.mkdir()
    while True:
        run = start(folder, folder / "log", *COMMAND)
        if killed < kills and not run.ends_within(chance.uniform(0, seconds)):
            run.process.kill()
        if code := run.end():
            assert code == -9, run.log.read_text()
            killed += 1
            continue
        assert left(folder / "outputs") == whole
        if killed == kills:
            return
        folder = tmp_path / str(killed)
        folder.mkdir()


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
