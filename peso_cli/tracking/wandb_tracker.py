"""Tracking with Weights & Biases: one W&B run for each stage artifact, recorded in its folder.

Tracking is a service to the experiment and never its master: whatever fails in W&B ends in one warning, and the stage
goes on. A stage records and never talks to the server, so no server can hold it up; `sending` sends what is recorded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peso_cli.tracking.recorded import recorded_run
from peso_cli.tracking.tracker import NoTracker, Tracker, TrackerChoice

if TYPE_CHECKING:
    import wandb

_log = logging.getLogger("peso")

# Seconds that W&B's process on this machine may keep a stage waiting: to start, and to write out the end.
_START_SECONDS = 5.0
_FINISH_SECONDS = 10.0


class WandbTracker:
    """One W&B run, the only one open in its process. At the first call that fails it warns, at later ones not."""

    def __init__(self, run: wandb.Run, sample_rows: int) -> None:
        self._run = run
        self._sample_rows = sample_rows
        self._defined: set[str] = set()
        self._warned = False

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Log one point of the training curves over the axis `step`."""
        self._safely(lambda: self._log("step", step, values))

    def result(self, stage: int, values: Mapping[str, float]) -> None:
        """Log the results of one evaluated stage over the axis `stage`."""
        self._safely(lambda: self._log("stage", stage, values))

    def samples(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Log the first rows, as many as configured, as the table `samples`."""
        shown = [list(row) for row in rows[: self._sample_rows]]
        if shown:
            self._safely(lambda: self._log_table([*columns], shown))

    def close(self, failed: bool = False) -> None:
        """Finish the run, waiting a few seconds at most for what is still to be written."""
        self._safely(lambda: self._run.finish(exit_code=int(failed)))
        # A finished run's last values may still be on their way to its file; they are there once the service has ended.
        _end_service()

    def _log(self, axis: str, position: int, values: Mapping[str, float]) -> None:
        for name in values:
            if name not in self._defined:
                self._defined.add(name)
                self._run.define_metric(name, step_metric=axis)
        self._run.log({axis: position, **values})

    def _log_table(self, columns: list[str | int], rows: list[list[object]]) -> None:
        import wandb

        # W&B infers one type for each column and refuses a cell that differs, such as a word among ranks.
        self._run.log({"samples": wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})

    def _safely(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:
            if not self._warned:
                self._warned = True
                _log.warning("W&B failed (%s); going on, log.jsonl has every value", _one_line(error))


def open_wandb(
    config: TrackerChoice, folder: Path, *, group: str, name: str, settings: Mapping[str, object]
) -> Tracker:
    """Start recording the W&B run of one stage artifact, in place of any that an earlier attempt left in `folder`.

    Project, group, name and folder are ours, whatever WANDB_PROJECT, WANDB_MODE and their like say; WANDB_ENTITY counts
    where the configuration names no entity.

    Args:
        config: the `tracker` group.
        folder: the stage's run folder.
        group: W&B's group.
        name: the run's name.
        settings: W&B's config.
    """
    earlier = recorded_run(folder)
    run = {
        "project": config.project,
        "entity": config.entity,
        "group": group,
        "name": name,
        # Sent under the same id, two attempts at a stage are one run in W&B.
        "id": earlier.id if earlier else secrets.token_hex(8),
        "config": dict(settings),
        "mode": "offline",
    }
    try:
        return WandbTracker(_start(folder.resolve(), run), config.samples)
    except Exception as error:
        _end_service()
        _log.warning("W&B can't be started (%s); going on without it, log.jsonl has every value", _one_line(error))
        return NoTracker()


def _start(folder: Path, run: Mapping[str, Any]) -> wandb.Run:
    shutil.rmtree(folder / "wandb", ignore_errors=True)
    # Error reports would wait for the server at exit and complain on stderr; tables would be staged in the user's home.
    os.environ.update(WANDB_ERROR_REPORTING="false", WANDB_DATA_DIR=str(folder / "wandb"))
    import wandb

    # Silence must hold before the first run opens: then a missing key is an error and not a question on the terminal.
    wandb.setup(settings=wandb.Settings(silent=True, quiet=True))
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(**run, dir=folder, settings=_private_settings())


def _private_settings() -> wandb.Settings:
    """Return settings under which W&B is silent and records neither machine, code, git nor terminal output."""
    import wandb

    return wandb.Settings(
        silent=True,
        quiet=True,
        console="off",
        host="",
        disable_code=True,
        disable_git=True,
        save_code=False,
        label_disable=True,
        reinit="create_new",
        init_timeout=_START_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        finish_timeout_raises=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _end_service() -> None:
    """End W&B's background process and wait for it; until then it holds on to the ids and files of its runs."""
    # It exits the interpreter with the code of a service that died, hence SystemExit.
    with contextlib.suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
