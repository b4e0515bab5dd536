"""One run after another, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Positive
from peso_cli.sweeps.work import work


@dataclass(frozen=True, config=STRICT)
class Basic:
    """One run after another, in this process.

    Attributes:
        threads: of a run; None: as many as it would take alone.
    """

    name: Literal["basic"]
    threads: Positive | None

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Carry out the runs."""
        for name in names:
            work(folder, name, self.threads)
