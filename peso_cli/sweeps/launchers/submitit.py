"""Runs as jobs of a SLURM cluster, or as submitit would start them there but on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Natural, Positive
from peso_cli.errors import InputError
from peso_cli.sweeps.engine import missing_engine, room_for
from peso_cli.sweeps.work import work

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit.helpers import DelayedSubmission


class Work:
    """A run that submitit puts into the queue again when its time is up; it goes on from its last checkpoint."""

    def __call__(self, folder: Path, name: str, threads: int) -> None:
        """Carry out the run."""
        work(folder, name, threads)

    def checkpoint(self, folder: Path, name: str, threads: int) -> DelayedSubmission:
        """Return what is put into the queue again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder, name, threads)


@dataclass(frozen=True, config=STRICT)
class SubmititLocal:
    """Several runs at once on this machine, each in a process of its own.

    Attributes:
        jobs: runs at once; None: as many as the cores have room for.
        threads: of a run.
        timeout_min: minutes of one attempt.
        max_timeouts: how often a run is started again that took longer.
    """

    name: Literal["submitit_local"]
    jobs: Positive | None
    threads: Positive
    timeout_min: Positive
    max_timeouts: Natural

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Carry out the runs."""
        executor = _executor(self.name, "local", folder, self.max_timeouts)
        executor.update_parameters(timeout_min=self.timeout_min, cpus_per_task=self.threads)

        def carry_out(name: str) -> None:
            # What went wrong inside is in the ledger; a process that was killed leaves its run missing there.
            executor.submit(Work(), folder, name, self.threads).exception()

        # Submitit itself starts everything at once here.
        with ThreadPoolExecutor(room_for(self.jobs, self.threads)) as pool:
            list(pool.map(carry_out, names))


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
    more: Mapping[str, str | int | float | bool]

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Put the runs into the queue and wait for them.

        Raises:
            InputError: there is no SLURM here, or it refuses the jobs.
        """
        executor = _executor(self.name, "slurm", folder, self.max_timeouts)
        executor.update_parameters(**self._parameters())
        count = len(names)
        try:
            jobs = executor.map_array(Work(), [folder] * count, names, [self.threads] * count)
        except Exception as error:
            raise InputError(f"launcher={self.name}: {' '.join(str(error).split())}") from None
        for job in jobs:
            job.exception()

    def _parameters(self) -> dict[str, Any]:
        given = {
            "timeout_min": self.timeout_min,
            "cpus_per_task": self.threads,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory_gb,
            "slurm_array_parallelism": self.jobs,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_setup": list(self.setup) or None,
            "slurm_additional_parameters": dict(self.more) or None,
        }
        return {key: value for key, value in given.items() if value is not None}


def _executor(launcher: str, cluster: str, folder: Path, max_timeouts: int) -> AutoExecutor:
    try:
        from submitit import AutoExecutor
    except ImportError:
        raise missing_engine(launcher, "submitit") from None
    try:
        return AutoExecutor(folder / "submitit" / "%j", cluster=cluster, **{f"{cluster}_max_num_timeout": max_timeouts})
    except RuntimeError as error:
        raise InputError(f"launcher={launcher}: {error}; launcher=submitit_local needs no cluster") from None
