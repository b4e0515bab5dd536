"""The ledger: which runs of a sweep are done, running, failed or missing. What it says rests on artifacts and locks."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from peso_cli.artifacts import Artifact
from peso_cli.config.fingerprint import digest
from peso_cli.errors import RunError
from peso_cli.files import read_json, write_json
from peso_cli.locks import hold, is_held
from peso_cli.sweeps.plan import Job

State = Literal["done", "running", "failed", "missing"]
STATES: tuple[State, ...] = ("done", "running", "failed", "missing")

FORMAT = 1
"""Version of what a sweep's folder holds."""

FOLDER = "sweeps"
"""Where in the output folder sweeps keep their ledgers and logs."""


@dataclass(frozen=True)
class Ledger:
    """A sweep's folder: `plan.json`, and for each run its last word (`runs/NAME.json`), its lock and its log.

    Attributes:
        folder: the folder.
    """

    folder: Path

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """The runs, in the order in which they should begin.

        Raises:
            RunError: the plan can't be read.
        """
        return tuple(self._plan["jobs"])

    @cached_property
    def config_dir(self) -> Path | None:
        """The user's own config folder, if one was given."""
        return Path(found) if (found := self._plan["config_dir"]) else None

    @cached_property
    def directory(self) -> Path:
        """The working directory that the runs' relative paths start from."""
        return Path(self._plan["directory"])

    @cached_property
    def _plan(self) -> dict[str, Any]:
        path = self.folder / "plan.json"
        try:
            plan = read_json(path)
            if (found := plan.get("format", FORMAT)) != FORMAT:
                raise ValueError(f"it is of format {found}, this version of peso has format {FORMAT}")
            jobs = [Job(**{**job, "ways": tuple(map(tuple, job["ways"]))}) for job in plan["jobs"]]
            return {**plan, "jobs": jobs}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: can't be read ({error}); give the sweep's command again") from None

    def job(self, name: str) -> Job:
        """Return a run by its name."""
        return next(job for job in self.jobs if job.name == name)

    def log(self, job: Job) -> Path:
        """Return where a run says what it is doing."""
        return self.folder / "logs" / f"{job.name}.log"

    def state(self, job: Job) -> State:
        """Return how a run stands."""
        word = self._last_word(job).get("state")
        if word == "done" and all(Artifact(Path(folder)).finished for folder in job.fingerprints):
            return "done"
        if is_held(self._lock(job)):
            return "running"
        return "failed" if word == "failed" else "missing"

    def states(self) -> dict[str, State]:
        """Return how every run stands, by its name."""
        return {job.name: self.state(job) for job in self.jobs}

    def error(self, job: Job) -> str | None:
        """Return why a run failed."""
        found: str | None = self._last_word(job).get("error")
        return found

    def process(self, job: Job) -> int | None:
        """Return the process that a run is or was last carried out by, if it was one of this machine."""
        word = self._last_word(job)
        found: int | None = word.get("process") if word.get("host") == platform.node() else None
        return found

    @contextmanager
    def begin(self, job: Job, waiting: Callable[[], object]) -> Iterator[None]:
        """Mark a run as running while the block runs; then as done, or as failed if the block raises an Exception.

        An interruption leaves it missing.
        """
        with hold(self._lock(job), waiting):
            self._say(job, {"state": "begun", "process": os.getpid(), "host": platform.node()})
            try:
                yield
            except Exception as error:
                self._say(job, {"state": "failed", "error": " ".join(str(error).split()) or type(error).__name__})
                raise
            self._say(job, {"state": "done"})

    def write(self) -> Path:
        """Write ledger.json, what stands at this moment, for people and other programs; return its path."""
        path = self.folder / "ledger.json"
        write_json(path, self.document())
        return path

    def document(self) -> dict[str, Any]:
        """Return what ledger.json says: every run with its state, what leads to it and where it lies."""
        states = self.states()
        return {
            "format": FORMAT,
            "folder": str(self.folder),
            "states": {state: sum(found == state for found in states.values()) for state in STATES},
            "runs": [self._row(job, states[job.name]) for job in self.jobs],
        }

    def _row(self, job: Job, state: State) -> dict[str, Any]:
        failed = {"error": self.error(job), "log": str(self.log(job))} if state == "failed" else {}
        return {"run": job.label, "state": state, **failed, **asdict(job)}

    def _last_word(self, job: Job) -> Mapping[str, Any]:
        try:
            found = json.loads(self._word(job).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _say(self, job: Job, word: Mapping[str, Any]) -> None:
        write_json(self._word(job), word)

    def _word(self, job: Job) -> Path:
        return self.folder / "runs" / f"{job.name}.json"

    def _lock(self, job: Job) -> Path:
        return self.folder / "runs" / f".{job.name}.lock"


def open_ledger(output: Path, jobs: Sequence[Job], config_dir: Path | None) -> Ledger:
    """Return the ledger of a sweep, the one that is there already if the same runs were asked for before.

    A sweep is the set of its runs: its folder is named after their digest.
    """
    ledger = Ledger(output / FOLDER / digest(sorted(job.name for job in jobs))[:8])
    folder = str(config_dir.resolve()) if config_dir else None
    plan = {"format": FORMAT, "directory": str(Path.cwd()), "config_dir": folder, "jobs": [asdict(job) for job in jobs]}
    write_json(ledger.folder / "plan.json", plan)
    return ledger
