"""Several runs at once in processes of this machine, by joblib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Positive
from peso_cli.errors import RunError
from peso_cli.sweeps.engine import room_for
from peso_cli.sweeps.work import work


@dataclass(frozen=True, config=STRICT)
class Joblib:
    """Several runs at once in processes of this machine.

    Attributes:
        jobs: runs at once; None: as many as the cores have room for.
        threads: of a run.
    """

    name: Literal["joblib"]
    jobs: Positive | None
    threads: Positive

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Carry out the runs.

        Raises:
            RunError: one of the processes was killed, which joblib's other processes don't outlive.
        """
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        call = delayed(work)
        try:
            with parallel_config("loky", inner_max_num_threads=self.threads):
                Parallel(n_jobs=room_for(self.jobs, self.threads), batch_size=1, pre_dispatch="all")(
                    call(folder, name, self.threads) for name in names
                )
        except TerminatedWorkerError:
            raise RunError(
                "a process of the sweep was killed (out of memory?), and with it the others; "
                "the same command goes on from what is finished, launcher.jobs=1 takes less memory"
            ) from None
