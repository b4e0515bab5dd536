"""What W&B's files in a stage's folder hold of its run, and whether that was sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peso_cli.files import read_json, write_json


@dataclass(frozen=True)
class RecordedRun:
    """The W&B run of one stage, as recorded in its folder.

    Attributes:
        folder: the stage's folder.
        file: W&B's file with all that the run was told.
    """

    folder: Path
    file: Path

    @property
    def id(self) -> str:
        """W&B's id of the run."""
        return self.file.stem.removeprefix("run-")

    @property
    def synced(self) -> Path:
        """The mark that `wandb sync` leaves when it has come to the run's end, even if the server took none of it."""
        return self.file.with_name(f"{self.file.name}.synced")

    @property
    def sent(self) -> dict[str, Any] | None:
        """What our own mark says, that the whole run was sent: its `id` and `url`; None if it wasn't."""
        try:
            mark = read_json(self._mark)
        except (OSError, ValueError):
            return None
        return mark if isinstance(mark, dict) and mark.get("id") == self.id else None

    def mark_sent(self, url: str | None) -> None:
        """Mark the run as sent; an attempt that trains the stage anew removes the mark with all of W&B's files."""
        write_json(self._mark, {"id": self.id, "url": url})

    @property
    def lock(self) -> Path:
        """The lock of whoever sends the run."""
        return self.folder / "wandb" / ".sending.lock"

    @property
    def _mark(self) -> Path:
        return self.folder / "wandb" / "SENT"


def recorded_run(folder: Path) -> RecordedRun | None:
    """Return the run that is recorded in a stage's folder, the latest if there are several."""
    found = sorted((folder / "wandb").glob("*run-*/run-*.wandb"))
    return RecordedRun(folder, found[-1].resolve()) if found else None
