import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands.running import SMALL, peso, refused
from sweeps.small_sweeps import Sweep, kill

from peso_cli.sweeps.launchers import submitit_job
from peso_cli.training.checkpoints import load_checkpoint

LOCAL = ("launcher=submitit_local", "launcher.jobs=1")
LONG = (
    "stage=1",
    "method=single",
    "dataset.users=300",
    "trainer.epochs=1",
    "trainer.batch_tokens=32",
    "trainer.accumulation=1",
)
"""A run of one epoch that takes a few seconds: only a checkpoint within the epoch keeps any of it."""


# Jobs of SLURM, as this machine would submit them


def stand_in(folder: Path, monkeypatch, **programs: str) -> None:
    """Put shell programs on the path."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_what_the_settings_say_reaches_sbatch(tmp_path, monkeypatch):
    submit = f'cp "$1" {tmp_path}/submitted; echo Submitted batch job 7'
    stand_in(tmp_path, monkeypatch, sbatch=submit, srun="", squeue="", scancel="")
    settings = ("jobs=1", "threads=3", "timeout_min=2", "memory_gb=5", "gpus=1", "partition=fast", "account=me")
    more = ("launcher.more={constraint:a100,exclusive:true}", "launcher.setup=[module_load_cuda]")
    words = ("seed=1,2", "launcher=submitit_slurm", *(f"launcher.{word}" for word in settings), *more)
    answer = peso("sweep", *SMALL, *words, f"output={tmp_path / 'outputs'}")
    assert answer.code == 1
    assert answer.err.count("ended before it did (it said nothing)") == 2
    lines = (tmp_path / "submitted").read_text().splitlines()
    options = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert options >= {"array=0-1%1", "cpus-per-task=3", "time=2", "mem=5GB", "gpus-per-node=1", "partition=fast"}
    assert options >= {"account=me", "constraint=a100", "exclusive", "requeue", "signal=USR2@60"}
    assert lines.index("module_load_cuda") < len(lines) - 1
    assert lines[-1].startswith("srun ")
    assert " --cpus-per-task=3 " in lines[-1]


def test_sbatch_that_refuses_is_one_line(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, sbatch="echo 'sbatch: error: closed on Sundays' >&2; exit 1", srun="")
    answer = peso("sweep", *SMALL, "seed=1", "launcher=submitit_slurm", f"output={tmp_path / 'outputs'}")
    refused(answer, "launcher=submitit_slurm: SLURM doesn't take the runs: closed on Sundays; see launcher.partition")
    assert answer.err.count("closed on Sundays") == 1


def test_without_slurm_the_complaint_names_the_launcher_that_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = peso("sweep", *SMALL, "seed=1", "launcher=submitit_slurm", f"output={tmp_path / 'outputs'}")
    refused(answer, "launcher=submitit_slurm", "launcher=submitit_local")


# Jobs of this machine


def test_submitit_makes_no_more_than_six_attempts_so_no_more_can_be_asked_for(tmp_path):
    answer = peso("sweep", *SMALL, *LOCAL, "launcher.max_timeouts=6", f"output={tmp_path}")
    refused(answer, "launcher.max_timeouts")


@pytest.fixture
def signals():
    """Leave the handlers of signals as they are."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("devices", [None, "1,2"])
def test_a_job_sees_the_devices_that_the_sweep_sees(tmp_path, monkeypatch, signals, devices):
    seen = []
    monkeypatch.setattr(submitit_job, "work", lambda *args: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    submitit_job.Work({"CUDA_VISIBLE_DEVICES": devices})(tmp_path, "run", 1)
    assert seen == [devices]


def steps_in_epoch(sweep: Sweep) -> int:
    """How far into its epoch the only checkpoint is."""
    (path,) = sweep.folder.rglob("checkpoint.safetensors")
    found = load_checkpoint(path)
    assert found is not None
    return int(found.progress["step_in_epoch"])


def wait_for_steps(sweep: Sweep, beyond: int = 0) -> int:
    """Wait until training is beyond a step; return the process that trains."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        logs = [log.read_text() for log in sweep.folder.rglob("logs/*.log")]
        steps = [int(step) for log in logs for step in re.findall(r"training (\d+)/", log)]
        if max(steps, default=0) > beyond and (running := sweep.running()):
            return running[0]
        time.sleep(0.02)
    raise AssertionError("no step was taken")


@pytest.fixture
def begin():
    """Start sweeps that leave no process, however the test ends."""
    begun = []

    def start(sweep: Sweep, *launcher: str) -> subprocess.Popen[str]:
        begun.append(sweep.start(*launcher))
        return begun[-1]

    yield start
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What the long run leaves if nothing comes between."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert peso("sweep", *SMALL, *LONG, f"output={folder / 'outputs'}").code == 0
    return Sweep(folder, LONG).artifacts()


@pytest.mark.long
def test_ctrl_c_in_the_terminal_keeps_a_checkpoint_and_the_same_command_goes_on(tmp_path, begin, uninterrupted):
    sweep = Sweep(tmp_path, (*LONG, "seed=1"))
    process = begin(sweep, *LOCAL)
    wait_for_steps(sweep)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert steps_in_epoch(sweep) > 0
    assert peso("sweep", *SMALL, *LONG, "seed=1", f"output={tmp_path / 'outputs'}").code == 0
    assert sweep.artifacts() == uninterrupted


@pytest.mark.long
def test_a_run_out_of_time_is_begun_again_where_it_was_until_that_was_often_enough(tmp_path, begin, uninterrupted):
    sweep = Sweep(tmp_path, LONG)
    process = begin(sweep, *LOCAL, "launcher.max_timeouts=1", "launcher.timeout_min=10")
    first = wait_for_steps(sweep)
    os.kill(first, signal.SIGUSR2)
    while (second := sweep.wait_for_a_run()) == first:
        time.sleep(0.02)
    kept = steps_in_epoch(sweep)
    assert kept > 0
    assert wait_for_steps(sweep, kept) == second
    os.kill(second, signal.SIGUSR2)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 1, told
    assert "failed: out of time (launcher.timeout_min, launcher.max_timeouts)" in told
    assert steps_in_epoch(sweep) > kept
    assert peso("sweep", *SMALL, *LONG, f"output={tmp_path / 'outputs'}").code == 0
    assert sweep.artifacts() == uninterrupted


@pytest.mark.long
def test_a_process_that_is_killed_is_named_and_its_run_is_missing(tmp_path, begin):
    sweep = Sweep(tmp_path, (*LONG, "trainer.epochs=9"))
    process = begin(sweep, *LOCAL)
    kill(wait_for_steps(sweep))
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 1, told
    assert "ended before it did" in told
    assert sweep.document()["states"] == {"done": 0, "running": 0, "failed": 0, "missing": 1}
