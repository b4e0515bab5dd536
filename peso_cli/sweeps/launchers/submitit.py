"""Runs as jobs of a SLURM cluster, or as submitit would start them there but on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Natural, Positive
from peso_cli.errors import InputError
from peso_cli.sweeps.engine import missing_engine, room_for
from peso_cli.sweeps.launchers.local_processes import LocalProcesses
from peso_cli.sweeps.launchers.slurm_queue import SlurmQueue
from peso_cli.sweeps.launchers.submitit_job import Work
from peso_cli.sweeps.ledger import Ledger
from peso_cli.terminal import warn
from peso_cli.training.interrupt import StopSignal

if TYPE_CHECKING:
    from submitit import Job, SlurmExecutor

_SECONDS = 0.2
"""Between two looks at what goes on."""

_FOLDER = "submitit"
"""Where in a sweep's folder jobs and what they print lie; SLURM needs it to be there before a job begins."""

_SETTINGS = "launcher.partition, launcher.account, launcher.memory_gb, launcher.threads, launcher.gpus, launcher.more"
"""What SLURM may find fault with."""


@dataclass(frozen=True, config=STRICT)
class SubmititLocal:
    """Several runs at once on this machine, each in a process of its own.

    Attributes:
        jobs: runs at once; None: as many as the cores have room for.
        threads: of a run.
        timeout_min: minutes of one attempt.
        max_timeouts: how often a run is started again that took longer; submitit makes six attempts at most.
    """

    name: Literal["submitit_local"]
    jobs: Positive | None
    threads: Positive
    timeout_min: Positive
    max_timeouts: Annotated[int, Field(strict=True, ge=0, le=5)]

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Carry out the runs.

        Raises:
            InputError: submitit isn't installed.
            KeyboardInterrupt: a signal asked to stop; the runs have kept checkpoints and ended.
        """
        try:
            from submitit import LocalExecutor
        except ImportError:
            raise missing_engine(self.name, "submitit") from None
        executor = LocalExecutor(folder / _FOLDER, max_num_timeout=self.max_timeouts)
        executor.update_parameters(timeout_min=self.timeout_min, signal_delay_s=_grace(self.timeout_min))
        # Submitit would hide every GPU from them.
        call = Work({"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")})
        with StopSignal() as stop:
            processes = LocalProcesses(
                names,
                room_for(self.jobs, self.threads),
                lambda name: executor.submit(call, folder, name, self.threads),
                lambda name, job: _explain(stop, Ledger(folder), name, job),
            )
            _see_through(stop, processes)


@dataclass(frozen=True, config=STRICT)
class SubmititSlurm:
    """Every run is a job of a SLURM cluster.

    Attributes:
        jobs: most runs at once.
        threads: cores of a run.
        timeout_min: minutes of one attempt.
        max_timeouts: how often a run is put into the queue again that took longer.
        memory_gb: of a run; None for the cluster's default.
        gpus: of a run.
        partition, account: None for the cluster's default.
        setup: shell lines before each run.
        more: further sbatch options by name.
    """

    name: Literal["submitit_slurm"]
    jobs: Positive
    threads: Positive
    timeout_min: Positive
    max_timeouts: Natural
    memory_gb: Positive | None
    gpus: Natural
    partition: str | None
    account: str | None
    setup: tuple[str, ...]
    more: Mapping[str, str | int | float | bool] | None

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Put the runs into the queue and wait for them.

        Raises:
            InputError: submitit isn't installed, there is no SLURM here, or it refuses the jobs.
            KeyboardInterrupt: a signal asked to stop; the runs have kept checkpoints and ended.
        """
        if not names:
            return
        executor = self._executor(folder)
        with StopSignal() as stop:
            jobs = {job.job_id: job for job in self._submit(executor, folder, names)}
            named = dict(zip(jobs, names, strict=True))
            queue = SlurmQueue(jobs, lambda number: _explain(stop, Ledger(folder), named[number], jobs[number]), warn)
            _see_through(stop, queue)

    def _executor(self, folder: Path) -> SlurmExecutor:
        try:
            from submitit import SlurmExecutor
        except ImportError:
            raise missing_engine(self.name, "submitit") from None
        (folder / _FOLDER).mkdir(parents=True, exist_ok=True)
        try:
            executor = SlurmExecutor(folder / _FOLDER, max_num_timeout=self.max_timeouts)
        except RuntimeError as error:
            raise InputError(f"launcher={self.name}: {error} launcher=submitit_local needs no cluster") from None
        executor.update_parameters(**self._parameters(f"peso-{folder.name}"))
        return executor

    def _parameters(self, job_name: str) -> dict[str, Any]:
        more = {"requeue": True, **(self.more or {})}
        given = {
            "job_name": job_name,
            "time": self.timeout_min,
            "signal_delay_s": _grace(self.timeout_min),
            "cpus_per_task": self.threads,
            # Since SLURM 22.05 the step within a job doesn't take over how many cores its task is to have.
            "srun_args": [f"--cpus-per-task={self.threads}"],
            "gpus_per_node": self.gpus or None,
            "mem": self.memory_gb and f"{self.memory_gb}GB",
            "array_parallelism": self.jobs,
            "partition": self.partition,
            "account": self.account,
            "setup": list(self.setup) or None,
            "additional_parameters": {key: value for key, value in more.items() if value is not False},
        }
        return {key: value for key, value in given.items() if value is not None}

    def _submit(self, executor: SlurmExecutor, folder: Path, names: Sequence[str]) -> Sequence[Job[None]]:
        count, printed = len(names), StringIO()
        try:
            # Submitit prints what sbatch complains of before it raises that, too.
            with redirect_stderr(printed):
                jobs: Sequence[Job[None]] = executor.map_array(
                    Work({}), [folder] * count, names, [self.threads] * count
                )
        except (RuntimeError, OSError) as error:
            said = "; ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
            raise InputError(f"launcher={self.name}: SLURM doesn't take the runs: {said}; see {_SETTINGS}") from None
        sys.stderr.write(printed.getvalue())
        return jobs


def _grace(timeout_min: int) -> int:
    """Return how many seconds before its time is up a run is told to keep a checkpoint."""
    return min(90, 30 * timeout_min)


def _see_through(stop: StopSignal, runs: SlurmQueue | LocalProcesses) -> None:
    """Wait until no run goes on. Asked to stop, have them end; asked twice, have them end at once and don't wait.

    Raises:
        KeyboardInterrupt: it was asked to stop.
    """
    while runs.look():
        if stop.requested:
            warn("stopping, which waits until every run has kept a checkpoint (a second time: at once)")
            _wind_down(runs)
            raise KeyboardInterrupt
        time.sleep(_SECONDS)


def _wind_down(runs: SlurmQueue | LocalProcesses) -> None:
    runs.end()
    try:
        while runs.look():
            time.sleep(_SECONDS)
    except KeyboardInterrupt:
        # To a run that is stopping already, a second signal means at once.
        runs.end()
        raise


def _explain(stop: StopSignal, ledger: Ledger, name: str, job: Job[None]) -> None:
    """Say what is known of a job that ended unasked and without a word of its run: killed, cancelled, out of memory."""
    run, output = ledger.job(name), job.paths.stderr
    if ledger.state(run) == "missing" and not stop.requested:
        lines = output.read_text(errors="replace").split("\n") if output.is_file() else []
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        warn(f"{run.label}: its job {job.job_id} ended before it did ({last}); see {output}")
