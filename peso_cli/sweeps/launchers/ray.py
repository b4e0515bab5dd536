"""Runs as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Natural, Positive
from peso_cli.errors import InputError
from peso_cli.sweeps.engine import missing_engine, room_for
from peso_cli.sweeps.work import work


@dataclass(frozen=True, config=STRICT)
class Ray:
    """Every run is a task of a Ray cluster that shares the output folder.

    Attributes:
        address: of a cluster that is there; None: one is started here and ended with the sweep.
        jobs: runs at once on one that is started here; None: as many as the cores have room for.
        threads: cores of a run.
        gpus: of a run.
        retries: how often a run is started again whose process or machine died.
    """

    name: Literal["ray"]
    address: str | None
    jobs: Positive | None
    threads: Positive
    gpus: Natural
    retries: Natural

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Carry out the runs.

        Raises:
            InputError: Ray isn't installed, or there is no cluster at the address.
        """
        try:
            import ray
        except ImportError:
            raise missing_engine(self.name, "ray") from None
        # Without this Ray writes a token into the home folder, which nothing here needs.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        cores = None if self.address else room_for(self.jobs, self.threads) * self.threads
        try:
            ray.init(self.address, num_cpus=cores, include_dashboard=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError) as error:
            raise InputError(f"launcher.address={self.address}: {' '.join(str(error).split())}") from None
        try:
            task = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_retries=self.retries)(work)
            waiting = [task.remote(folder, name, self.threads) for name in names]
            for result in waiting:
                # What went wrong inside is in the ledger; a process that died for good leaves its run missing there.
                with suppress(ray.exceptions.RayError):
                    ray.get(result)
        finally:
            ray.shutdown()
