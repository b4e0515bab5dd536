"""Small logs, as a source's reader gives them, and builds of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from peso_cli.data.layout import stage_folders
from peso_cli.data.raw import Cleaning, RawDataset, Split
from peso_cli.data.sources.frames import EVENT_SCHEMA, ITEM_SCHEMA, Raw

ALL = Cleaning("fail", "ms", "keep", None, 0, 0, None, None)
"""Cleaning that drops nothing."""

HALVES = Split("chronological", "shares", (0.5, 0.5), (), 2, 1)

BASE = 1_500_000_000_000
"""The moment from which tests count, in milliseconds."""


class Lines:
    """A display that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def bar(self, title: str) -> Callable[[int, int, str], None]:
        return lambda done, total, note: None


def raw_of(rows: Iterable[Sequence], texts: Sequence[Sequence] = ()) -> Raw:
    """Tables of (user, item, timestamp or what is written there, rating) and of (item, title)."""
    full = [(*row, None)[:4] for row in rows]
    columns = list(zip(*full, strict=True)) or [[], [], [], []]
    written = [None if t is None else str(BASE + t) if isinstance(t, int) else t for t in columns[2]]
    places = [f"log:{number}" for number in range(1, len(full) + 1)]
    events = pl.DataFrame([columns[0], columns[1], written, columns[3], places], schema=EVENT_SCHEMA)
    items = pl.DataFrame([(*text, None, None, None) for text in texts], schema=ITEM_SCHEMA, orient="row")
    return Raw(events.lazy(), items.lazy())


def dataset_at(path: Path, **changes) -> RawDataset:
    """A dataset whose folder is `path`."""
    return replace(RawDataset("parquet", "mine", str(path), ("log",), (), ()), **changes)


def stages_at(root: Path) -> list[list[tuple[str, str, int]]]:
    """The (user, item, moment since BASE) of each stage, in the order of its file."""
    tables = [pl.read_parquet(stage.interactions) for stage in stage_folders(root)]
    return [[(user, item, moment - BASE) for user, item, moment in table.iter_rows()] for table in tables]


def items_at(root: Path) -> list[list[str]]:
    """The new items of each stage, in the order of its file."""
    return [pl.read_parquet(stage.items)["item"].to_list() for stage in stage_folders(root)]


def digests(root: Path) -> dict[str, str]:
    """The SHA-256 of every file under a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
