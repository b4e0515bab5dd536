"""Small folders as `peso data build` and `peso tokenize` leave them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from peso_cli.data.layout import FORMAT, INTERACTIONS, ITEMS, MANIFEST, SEMANTIC_IDS, STAGE_MANIFEST
from peso_cli.data.raw import BuiltDataset
from peso_cli.files import sha256
from peso_cli.semantic_ids.store import FIGURES, write_new

Stage = Mapping[str, Sequence[str]]
"""A stage's events: user to items, in time order."""

FIGURES_OF_IDS: dict[str, Any] = {"dataset": {}, **dict.fromkeys(FIGURES)}
"""What the files of semantic IDs say beside settings and sizes; reading a dataset doesn't look at it."""

_TEXTS = ("title", "description", "brand", "categories")


def built(root: Path, **settings: Any) -> BuiltDataset:
    """The configuration of a folder; items are recommended from their first stage on unless it says otherwise."""
    return BuiltDataset(
        **{"source": "built", "name": "toy", "path": str(root), "semantic_ids": None, "catalog": "visible"} | settings
    )


def new_items(stages: Sequence[Stage]) -> list[list[str]]:
    """For each stage the items that no earlier one has, in the order of their first event."""
    seen: set[str] = set()
    found: list[list[str]] = []
    for stage in stages:
        found.append([i for i in dict.fromkeys(i for events in stage.values() for i in events) if i not in seen])
        seen |= set(found[-1])
    return found


def write_stages(
    root: Path, stages: Sequence[Stage], texts: Mapping[str, Mapping[str, str]] | None = None, built: int | None = None
) -> Path:
    """Write a folder of stages without semantic IDs.

    Args:
        root: the folder.
        stages: the events of each stage.
        texts: title, description, brand and categories of items, as far as they have any.
        built: how many of the stages the build made; the others were appended. By default all.
    """
    clock = 0
    for number, (stage, items) in enumerate(zip(stages, new_items(stages), strict=True), start=1):
        folder = root / f"stage_{number}"
        folder.mkdir(parents=True)
        pairs = [(user, item) for user, events in stage.items() for item in events]
        times = range(clock, clock := clock + len(pairs))
        rows = [(user, item, time) for (user, item), time in zip(pairs, times, strict=True)]
        schema = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64}
        pl.DataFrame(rows, schema, orient="row").write_parquet(folder / INTERACTIONS)
        known = [{"item": item, **(texts or {}).get(item, {})} for item in items]
        pl.DataFrame(known, dict.fromkeys(("item", *_TEXTS), pl.String)).write_parquet(folder / ITEMS)
        seal(folder, number)
    (root / MANIFEST).write_text(json.dumps({"format": FORMAT, "name": "toy", "stages": built or len(stages)}))
    return root


def seal(folder: Path, stage: int) -> None:
    """Write a stage's manifest with the checksums of its files as they are now."""
    files = {name: sha256(folder / name) for name in (INTERACTIONS, ITEMS)}
    (folder / STAGE_MANIFEST).write_text(json.dumps({"format": FORMAT, "stage": stage, "files": files}))


def codes_of(items: Sequence[str]) -> dict[str, list[int]]:
    """Semantic IDs of two levels, of 5 and as many codes as it takes, for items in the order of the catalog."""
    return {item: [number % 5, number // 5] for number, item in enumerate(items)}


def write_ids(
    root: Path,
    stages: Sequence[Stage],
    codes: Mapping[str, Sequence[int]] | None = None,
    name: str = "rq_kmeans",
    sizes: Sequence[int] | None = None,
) -> Path:
    """Write semantic IDs for the new items of the given stages; the folder may hold more stages."""
    items = new_items(stages)
    codes = codes or codes_of([item for some in items for item in some])
    sizes = sizes or [max(level) + 1 for level in zip(*codes.values(), strict=True)]
    arrays = [np.array([codes[i] for i in some], dtype=np.int32).reshape(-1, len(sizes)) for some in items]
    document = {"settings": {"fit_on": "stage_1"}, "level_sizes": list(sizes), **FIGURES_OF_IDS}
    write_new(root / SEMANTIC_IDS / name, list(zip(items, arrays, strict=True)), {}, document)
    return root / SEMANTIC_IDS / name


def write_built(root: Path, stages: Sequence[Stage], texts: Mapping[str, Mapping[str, str]] | None = None) -> Path:
    """Write a folder that is ready to train."""
    write_stages(root, stages, texts)
    write_ids(root, stages)
    return root
