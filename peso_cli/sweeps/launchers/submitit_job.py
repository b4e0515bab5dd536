"""What submitit carries to another process: a run of a sweep, which minds the signals that come to it there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any

from peso_cli.errors import RunError
from peso_cli.sweeps.ledger import Ledger
from peso_cli.sweeps.work import work

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_INTERRUPTED = 130


class Work:
    """A run as a job.

    When its time is up, or another job takes its place, it keeps a checkpoint and is put into the queue again, to go on
    from there. Told to stop (SIGTERM), it keeps a checkpoint and ends.
    """

    def __init__(self, environment: Mapping[str, str | None]) -> None:
        """Take variables that submitit changes as they are to be; None for one that isn't to be there."""
        self._environment = environment

    def __call__(self, folder: Path, name: str, threads: int) -> None:
        """Carry out the run.

        Raises:
            SystemExit: it was told to stop, or was put into the queue again.
            RunError: its time was up once too often, or it can't be put into the queue again.
        """
        from submitit import JobEnvironment

        _set_environment(self._environment)
        warning = signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
        requeue: Any = signal.getsignal(warning)
        warned: list[int] = []

        def stop_early(number: int, _: object) -> None:
            warned.append(number)
            signal.raise_signal(signal.SIGTERM)

        # Submitit would leave from whichever line runs when its signal comes; training can after the step under way.
        signal.signal(warning, stop_early)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            work(folder, name, threads)
        except KeyboardInterrupt:
            # What comes now must not leave the file that holds the job half-written.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(warning, signal.SIG_IGN)
            if not warned:
                raise SystemExit(_INTERRUPTED) from None
            _give_back(lambda: requeue(warning, None), Ledger(folder), name)

    def checkpoint(self, folder: Path, name: str, threads: int) -> DelayedSubmission:
        """Return what is put into the queue again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder, name, threads)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for key, value in variables.items():
        os.environ.pop(key, None)
        if value is not None:
            os.environ[key] = value


def _give_back(requeue: Callable[[], object], ledger: Ledger, name: str) -> None:
    """Put a run into the queue again; if that doesn't work, the ledger keeps why."""
    try:
        requeue()
    except (RuntimeError, SubprocessError, OSError) as error:
        with ledger.begin(ledger.job(name), lambda: None):
            raise RunError(f"out of time (launcher.timeout_min, launcher.max_timeouts): {error}") from error
