"""Sweeps of small runs in processes of their own, and what they leave."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands.running import SMALL, learnt

from peso_cli.sweeps.ledger import Ledger

STARTED = re.compile(r"^stage \d+: (?:training|resuming) (outputs\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Sweep:
    """A sweep in a folder of its own.

    Attributes:
        folder: its working directory.
        words: what it is of.
    """

    folder: Path
    words: tuple[str, ...]

    def start(self, *launcher: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own."""
        program = "from peso_cli.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", program, "sweep", *SMALL, *self.words, *launcher],
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def ledger(self) -> Ledger | None:
        """Its ledger, once it is there."""
        found = list(self.folder.glob("outputs/sweeps/*/plan.json"))
        return Ledger(found[0].parent) if found else None

    def running(self) -> list[int]:
        """The processes that carry out runs at this moment."""
        if (ledger := self.ledger) is None:
            return []
        found = [ledger.process(job) for job in ledger.jobs if ledger.state(job) == "running"]
        return [process for process in found if process is not None]

    def wait_for_a_run(self, seconds: float = 120) -> int:
        """Wait until a run goes on; return its process."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.running():
                return found[-1]
            time.sleep(0.05)
        raise AssertionError("no run began")

    def document(self) -> dict[str, Any]:
        """What ledger.json says."""
        assert self.ledger is not None
        found: dict[str, Any] = json.loads((self.ledger.folder / "ledger.json").read_text())
        return found

    def artifacts(self) -> dict[str, dict[str, Any]]:
        """What every finished stage holds, by its folder."""
        outputs = self.folder / "outputs"
        return {str(done.parent.relative_to(outputs)): learnt(done.parent) for done in sorted(outputs.rglob("DONE"))}

    def begun(self) -> Counter[str]:
        """How often the training of each stage was begun or taken up again, by its folder."""
        assert self.ledger is not None
        logs = [path.read_text() for path in sorted((self.ledger.folder / "logs").glob("*.log"))]
        return Counter(folder for log in logs for folder in STARTED.findall(log))

    def finished(self) -> dict[str, int]:
        """When each finished stage was finished, by its folder."""
        return {
            str(done.parent.relative_to(self.folder)): done.stat().st_mtime_ns for done in self.folder.rglob("DONE")
        }


def kill(process: int) -> None:
    """Kill a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
