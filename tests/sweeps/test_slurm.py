import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands.running import SMALL, peso, refused
from sweeps.small_sweeps import Sweep, kill

SCRIPT = Path(__file__).parents[1] / "slurm_cluster.sh"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
SLURM = ("launcher=submitit_slurm", "launcher.threads=1", "launcher.memory_gb=null")
LONG = ("stage=1", "method=single", "trainer.epochs=40", "trainer.patience=40")
"""Runs that go on for a few seconds."""

missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(missing), reason=f"needs SLURM on this machine, which lacks {', '.join(missing)}"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """A SLURM cluster of one node, for the tests of this file."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
    subprocess.run([SCRIPT, "stop", folder], check=True)
    assert not folder.exists()


def jobs_in_queue() -> list[str]:
    told = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i"], check=True, capture_output=True, text=True
    )
    return told.stdout.split()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def trains(sweep: Sweep) -> bool:
    """Whether a run has taken a step."""
    return any("training 1/" in log.read_text() for log in sweep.folder.rglob("logs/*.log"))


def test_a_sweep_in_slurm_leaves_what_one_in_this_process_leaves_and_trains_the_first_stage_once(tmp_path):
    words = ("method=single,peso", "seed=1,2")
    there = Sweep(tmp_path / "slurm", words)
    there.folder.mkdir()
    process = there.start(*SLURM, "launcher.jobs=2")
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "SLURM's job" in told
    assert there.document()["states"] == {"done": 4, "running": 0, "failed": 0, "missing": 0}
    assert jobs_in_queue() == []
    begun = there.begun()
    assert len(begun) == 2 + 4 * 2
    assert set(begun.values()) == {1}
    assert there.artifacts() == done_here(tmp_path / "basic", *words).artifacts()


def done_here(folder: Path, *words: str) -> Sweep:
    """Carry out a sweep's runs, or what is left of them, in this process."""
    answer = peso("sweep", *SMALL, *words, f"output={folder / 'outputs'}")
    assert answer.code == 0, answer.err
    return Sweep(folder, words)


def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_then_on_from_where_it_was(tmp_path):
    words = (*LONG, "seed=1")
    sweep = Sweep(tmp_path / "slurm", words)
    sweep.folder.mkdir()
    process = sweep.start(*SLURM)
    wait_for(lambda: trains(sweep), process)
    # SLURM itself sends this signal some time before the end.
    subprocess.run(["scancel", "--signal=USR2", *jobs_in_queue()], check=True)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 0, told
    assert set(sweep.begun().values()) == {2}
    assert sweep.artifacts() == done_here(tmp_path / "basic", *words).artifacts()


def test_ctrl_c_and_a_killed_job_change_nothing_of_what_is_learnt(tmp_path):
    words = (*LONG, "seed=1,2")
    sweep = Sweep(tmp_path / "slurm", words)
    sweep.folder.mkdir()

    # Ctrl-C: what waits leaves the queue, what runs keeps a checkpoint.
    process = sweep.start(*SLURM, "launcher.jobs=1")
    wait_for(lambda: trains(sweep), process)
    assert len(jobs_in_queue()) == 2
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 130, told
    assert "stopping" in told
    assert "Traceback" not in told
    assert jobs_in_queue() == []
    assert sweep.running() == []
    assert len(list(sweep.folder.rglob("checkpoint.safetensors"))) == 1

    # A job is killed: the sweep says so, and does the others.
    process = sweep.start(*SLURM, "launcher.jobs=2")
    kill(sweep.wait_for_a_run())
    told, _ = process.communicate(timeout=180)
    assert process.returncode == 1, told
    assert "ended before it did" in told
    assert sweep.document()["states"] == {"done": 1, "running": 0, "failed": 0, "missing": 1}

    done_here(sweep.folder, *words)
    assert sweep.artifacts() == done_here(tmp_path / "basic", *words).artifacts()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("launcher.partition=nowhere", "invalid partition specified: nowhere"),
        ("launcher.memory_gb=999999", "Memory specification can not be satisfied"),
        ("launcher.more={reservation:none}", "Requested reservation is invalid"),
    ],
)
def test_jobs_that_slurm_refuses_are_one_line(tmp_path, setting, said):
    answer = peso("sweep", *SMALL, "seed=1", f"output={tmp_path}", *SLURM, setting)
    line = refused(answer, "launcher=submitit_slurm", said, "launcher.partition")
    assert answer.err.count(said) == 1
    assert "sbatch: error" not in line
