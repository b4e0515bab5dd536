"""The folder of a built dataset: what lies where, and what is written last.

`PATH/dataset.json` says how it was built and is written last; `PATH/stage_<t>/` holds one stage and comes into being by
one rename: `interactions.parquet` (user, item, timestamp in milliseconds since 1970 UTC; the rows of a user stand
together, in time order), `items.parquet` (the items that no earlier stage has: item, title, description, brand,
categories) and `stage.json`. `PATH/semantic_ids/NAME/` holds one choice of semantic IDs. Nothing that exists ever
changes when a stage is appended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1
"""Version of the layout."""

MANIFEST = "dataset.json"
STAGE_MANIFEST = "stage.json"
INTERACTIONS = "interactions.parquet"
ITEMS = "items.parquet"
SEMANTIC_IDS = "semantic_ids"

_STAGE = re.compile(r"stage_([1-9][0-9]*)")


@dataclass(frozen=True)
class StageFolder:
    """One stage of a built dataset."""

    root: Path
    stage: int

    @property
    def folder(self) -> Path:
        """Where the stage lies."""
        return self.root / f"stage_{self.stage}"

    @property
    def interactions(self) -> Path:
        """Its events."""
        return self.folder / INTERACTIONS

    @property
    def items(self) -> Path:
        """The items that no earlier stage has."""
        return self.folder / ITEMS

    @property
    def manifest(self) -> Path:
        """Its figures and checksums."""
        return self.folder / STAGE_MANIFEST


def stage_folders(root: Path) -> list[StageFolder]:
    """Return the finished stages of a dataset's folder, 1, 2, … as far as they go without a gap."""
    names = {int(m[1]) for path in root.glob("stage_*") if (m := _STAGE.fullmatch(path.name)) and path.is_dir()}
    found: list[StageFolder] = []
    while len(found) + 1 in names and (next_one := StageFolder(root, len(found) + 1)).manifest.is_file():
        found.append(next_one)
    return found
