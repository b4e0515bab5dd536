"""SLURM's queue: what becomes of the jobs of a sweep there, and having them end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Mapping

_MOST_SECONDS = 10.0
"""Between two looks at the queue; at first, they follow each other faster."""


class SlurmQueue:
    """The jobs of a sweep as long as they are in the queue.

    Squeue tells, not sacct: a cluster need not keep accounts, and a job that never began leaves no other trace.
    """

    def __init__(self, jobs: Collection[str], ended: Callable[[str], object], say: Callable[[str], object]) -> None:
        """Begin with jobs just submitted.

        Args:
            jobs: their ids, all of one array.
            ended: called with a job's id once it is no longer in the queue.
            say: called with a line when something changes that people may want to know.
        """
        self._jobs, self._ended, self._say = set(jobs), ended, say
        self._array = next(iter(jobs)).partition("_")[0]
        self._began, self._next, self._said = time.monotonic(), 0.0, ""

    def look(self) -> bool:
        """Return whether jobs are still in the queue; SLURM itself is asked every few seconds."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + min(_MOST_SECONDS, 1 + (now - self._began) / 10)
            self._take(_queued(self._array))
        return bool(self._jobs)

    def _take(self, queued: Mapping[str, str] | None) -> None:
        if queued is None:
            self._tell("squeue doesn't answer; what became of the jobs is unknown until it does")
            return
        for job in sorted(self._jobs - queued.keys()):
            self._ended(job)
        self._jobs &= queued.keys()
        if queued:
            self._tell(f"SLURM's job {self._array}: {', '.join(sorted(set(queued.values())))}")

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._say(text)
        self._said = text

    def end(self) -> None:
        """Take the jobs that wait out of the queue, and tell those that run to stop; they may take their time."""
        # A plain scancel would kill those that run after half a minute, whether or not they have a checkpoint by then.
        for which in (["--state=PENDING"], ["--state=RUNNING", "--signal=TERM"]):
            subprocess.run(["scancel", *which, self._array], check=False)
        self._next = 0.0


def _queued(array: str) -> dict[str, str] | None:
    """Return the jobs of an array that haven't ended, each with its state in words; None if SLURM doesn't answer."""
    # Asked for one job by its number, squeue takes it for an error that the job has ended long ago.
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%T|%r"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return None
    rows = (line.split("|") for line in answer.stdout.splitlines())
    return {job: _words(state, reason) for job, state, reason in rows if job.partition("_")[0] == array}


def _words(state: str, reason: str) -> str:
    return f"pending ({reason})" if state == "PENDING" and reason != "None" else state.lower()
