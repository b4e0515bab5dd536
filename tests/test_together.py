"""Several processes that want the same stages at once: one trains, the others wait and reuse; the dead are replaced."""

import json
import random
from collections import Counter

import pytest
from commands.running import left
from forked import FIVE, Death, start

COMMAND = ("train", "stage=2", *FIVE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process leaves."""
    folder = tmp_path_factory.mktemp("alone")
    run = start(folder, folder / "log", *COMMAND)
    assert run.end() == 0, run.log.read_text()
    return left(folder / "outputs")


def steps(whole, stage):
    """How many optimiser steps a stage took."""
    (log,) = (data for name, data in whole.items() if name.endswith(f"stage_{stage}/log.jsonl"))
    return max(json.loads(line).get("step", 0) for line in log.splitlines())


@pytest.mark.parametrize(("processes", "rounds"), [(3, 2), pytest.param(8, 20, marks=pytest.mark.long)])
def test_of_several_processes_one_trains_each_stage(alone, tmp_path, processes, rounds):
    chance = random.Random(processes)
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        # In every second round whoever trains is killed on its way, and another one goes on from where it stood.
        stage = chance.randint(1, 2)
        death = Death(stage, chance.randint(1, steps(alone, stage)), folder / "died") if number % 2 else None
        runs = [start(folder, folder / f"{n}.log", *COMMAND, death=death) for n in range(processes)]
        codes = Counter(run.end() for run in runs)
        said = {what: sum((run.stages(what) for run in runs), Counter()) for what in ("training", "resuming")}
        assert codes == ({0: processes - 1, -9: 1} if death else {0: processes})
        assert said == {"training": {1: 1, 2: 1}, "resuming": {death.stage: 1} if death else {}}
        for run in runs:
            each = run.stages("training|resuming|reusing")
            assert each == {1: 1, 2: 1} or (run.process.exitcode and each.keys() <= {1, 2})
        assert left(folder / "outputs") == alone
