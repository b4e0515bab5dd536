"""Runs of a sweep in processes of this machine that submitit controls, some at a time."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from submitit import Job


class LocalProcesses:
    """Runs that wait for room, and jobs under way."""

    def __init__(
        self,
        names: Sequence[str],
        room: int,
        start: Callable[[str], Job[None]],
        ended: Callable[[str, Job[None]], object],
    ) -> None:
        """Take the runs, and begin none.

        Args:
            names: of the runs.
            room: how many at once; submitit itself begins all that it is given.
            start: makes a job of a run.
            ended: called with a run and its job once that has ended.
        """
        self._waiting, self._room, self._start, self._ended = deque(names), room, start, ended
        self._jobs: dict[str, Job[None]] = {}

    def look(self) -> bool:
        """Begin what there is room for; return whether a job goes on."""
        for name in [name for name, job in self._jobs.items() if job.done()]:
            self._ended(name, self._jobs.pop(name))
        while self._waiting and len(self._jobs) < self._room:
            name = self._waiting.popleft()
            with _deaf_to_interrupts():
                self._jobs[name] = self._start(name)
        return bool(self._jobs)

    def end(self) -> None:
        """Begin no more runs, and tell those under way to stop; they may take their time."""
        self._waiting.clear()
        for job in self._jobs.values():
            # A job's id is that of the process which controls it and passes this signal on.
            os.kill(int(job.job_id), signal.SIGTERM)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Keep SIGINT from the processes that the block starts.

    A Ctrl-C in the terminal reaches all its processes, and submitit's would kill a run a second later.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
