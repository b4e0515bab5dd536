"""A tracker takes what a stage measures; the one that does nothing spares the training loop every `if`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class TrackerChoice(Protocol):
    """What the `tracker` group of the configuration chooses."""

    @property
    def name(self) -> str:
        """Which tracker: `wandb` or `none`."""

    @property
    def project(self) -> str:
        """The W&B project."""

    @property
    def mode(self) -> str:
        """`offline` (files only, for `peso track sync`) or `online` (sent by a process of its own)."""

    @property
    def entity(self) -> str | None:
        """The W&B user or team; None leaves it to WANDB_ENTITY and the account."""

    @property
    def samples(self) -> int:
        """Most rows in the table of sample recommendations."""


class Tracker(Protocol):
    """Takes the measurements of one stage. No method ever raises because of the service behind it."""

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Take one point of the training curves, drawn over the optimiser step."""

    def result(self, stage: int, values: Mapping[str, float]) -> None:
        """Take Recall, NDCG and the like for one evaluated stage, drawn over the stage."""

    def samples(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Take a table of sample recommendations: one cell for each column in every row."""

    def close(self, failed: bool = False) -> None:
        """End the stage's run and write out what it still holds; `failed` marks it as one that broke off."""


class NoTracker:
    """Takes everything and does nothing with it."""

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def result(self, stage: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def samples(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Do nothing."""

    def close(self, failed: bool = False) -> None:
        """Do nothing."""


def open_tracker(
    config: TrackerChoice, folder: Path, *, group: str, name: str, settings: Mapping[str, object]
) -> Tracker:
    """Open the chosen tracker for one stage artifact.

    `WANDB_MODE=disabled` in the environment works like `tracker=none`; every other wish in the environment yields to
    the configuration (see `wandb_tracker.open_wandb`).

    Args:
        config: the `tracker` group.
        folder: the stage's run folder; W&B's own files go to `folder/wandb`.
        group: what the stages of one method and seed have in common.
        name: the run's name within its group.
        settings: the resolved configuration, to be shown and filtered by.
    """
    if config.name == "none" or os.environ.get("WANDB_MODE") == "disabled":
        return NoTracker()
    from peso_cli.tracking.wandb_tracker import open_wandb

    return open_wandb(config, folder, group=group, name=name, settings=settings)
