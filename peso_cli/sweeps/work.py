"""Carrying out one run of a sweep, in whichever process an engine starts it."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from peso_cli.config.compose import compose
from peso_cli.errors import InputError, RunError
from peso_cli.sweeps.ledger import Ledger
from peso_cli.terminal import quiet_libraries

if TYPE_CHECKING:
    from peso_cli.sweeps.plan import Job

_SECONDS = 5.0
"""Least time between two lines of a bar in a log."""


def work(folder: Path, name: str, threads: int | None) -> None:
    """Carry out a run unless it is done; what goes wrong is kept in its log and in the ledger, and raised no further.

    Args:
        folder: of the sweep.
        name: of the run.
        threads: that it may use; None leaves that to the libraries.
    """
    ledger = Ledger(folder)
    job = ledger.job(name)
    path = ledger.log(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    quiet_libraries()
    # W&B reads it by itself: whatever this sweep trains can be shown together there.
    os.environ["WANDB_TAGS"] = f"sweep-{ledger.folder.name}"
    if threads is not None:
        _limit(threads)
    with path.open("a", encoding="utf-8") as log:
        display = LogDisplay(log)
        try:
            if ledger.state(job) != "done":
                with ledger.begin(job, lambda: display.say("waiting for another process that carries out this run")):
                    _carry_out(job, ledger, display)
        except (InputError, RunError, OSError) as error:
            display.say(f"failed: {error}")
        except Exception:
            # A sweep goes on without a run that fails in a way nobody foresaw; its log keeps all there is to know.
            display.say(traceback.format_exc())


def _limit(threads: int) -> None:
    import torch

    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def _carry_out(job: Job, ledger: Ledger, display: LogDisplay) -> None:
    from peso_cli.evaluation.audiences import audiences
    from peso_cli.evaluation.figures import evaluate
    from peso_cli.stages import ensure, open_run, wanted_stages

    os.chdir(ledger.directory)
    for words in job.ways:
        display.say(f"peso train {' '.join(words)}")
        run = open_run(compose(words, ledger.config_dir))
        stages = wanted_stages(run.config.stage, run.dataset)
        asked = audiences(run, stages, display.say)
        ensure(run, stages, display)
        for stage, users in asked.items():
            evaluate(run, stage, users.on, users.split, display)


class LogDisplay:
    """Where a run of a sweep says what it is doing: lines of its log, bars as a line every few seconds."""

    def __init__(self, log: IO[str]) -> None:
        self._log = log

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._log, flush=True)

    def bar(self, title: str) -> Callable[[int, int, str], None]:
        """Open a progress bar; call it with (done, total, note)."""
        said = -_SECONDS

        def tick(done: int, total: int, note: str) -> None:
            nonlocal said
            if time.monotonic() - said >= _SECONDS:
                said = time.monotonic()
                self.say(f"{title} {done}/{total} {note}".rstrip())

        return tick
