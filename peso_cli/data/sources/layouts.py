"""Layouts of files, and reading a configuration's files in one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from peso_cli.data.raw import RawDataset
from peso_cli.data.sources.files import Entry, SourceFile, entries
from peso_cli.data.sources.frames import EVENT_SCHEMA, ITEM_SCHEMA, Raw
from peso_cli.stages import Display

Names = tuple[str, ...]
"""Patterns of file names."""

Scan = Callable[[SourceFile, RawDataset], pl.LazyFrame]
"""Gives the rows of one file with the fixed columns; raises InputError where it isn't of the layout."""


@dataclass(frozen=True)
class Layout:
    """How files hold interactions and items.

    Attributes:
        events: gives the interactions of a file.
        items: gives the items of a file, which may come several times.
        event_files: names of the files in a folder that hold interactions.
        item_files: names of those that hold items.
    """

    events: Scan
    items: Scan
    event_files: Names
    item_files: Names


def read_files(layout: Layout, config: RawDataset, display: Display) -> Raw:
    """Open the files of a configuration, one after the other as they are given.

    Raises:
        InputError: a file isn't there, or isn't of the layout.
        RunError: a URL can't be had, or what was fetched has changed.
    """
    interactions, items = entries(config)

    def scanned(given: list[Entry], scan: Scan, patterns: Names, but: Names) -> list[pl.LazyFrame]:
        return [scan(file, config) for entry in given for file in entry.files(patterns, but, display)]

    events, texts = layout.event_files, layout.item_files
    # Tables of both kinds may have the same names; where they don't, those of items are the more special ones.
    special = () if events == texts else texts
    return together(
        scanned(interactions, layout.events, events, special),
        scanned(items, layout.items, texts, ()),
    )


def together(events: list[pl.LazyFrame], items: list[pl.LazyFrame]) -> Raw:
    """Put the tables of several files after one another; of an item's rows the first counts."""
    all_items = pl.concat([pl.LazyFrame(schema=ITEM_SCHEMA), *items]).filter(pl.col("item").is_not_null())
    return Raw(
        pl.concat([pl.LazyFrame(schema=EVENT_SCHEMA), *events]),
        all_items.unique("item", keep="first", maintain_order=True),
    )
