"""RecBole's atomic files: tab-separated, with `name:type` above each column."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns, RawDataset
from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.layouts import Layout
from peso_cli.data.sources.separated import scan_separated
from peso_cli.data.sources.table import Table, events_of, items_of

_TEXTS = {
    "title": ("title", "movie_title", "name"),
    "description": ("description",),
    "brand": ("brand",),
    "categories": ("categories", "category", "class", "genre", "genres"),
}
"""What the data sets that RecBole offers call these columns."""

_WORDS = "token_seq"
"""The type of columns whose words a space separates."""


def atomic_events(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    """Return the interactions of a `.inter` file.

    Raises:
        InputError: it lacks the user, item or time.
    """
    table, _types = _scan(file)
    rating = "rating" if "rating" in table.columns else None
    return events_of(table, EventColumns(user="user_id", item="item_id", timestamp="timestamp", rating=rating))


def atomic_items(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    """Return the items of an `.item` file.

    Raises:
        InputError: it lacks the item.
    """
    table, types = _scan(file)
    names = {ours: next((n for n in theirs if n in table.columns), None) for ours, theirs in _TEXTS.items()}
    items = items_of(table, ItemColumns(item="item_id", **names))
    if types.get(names["categories"] or "") != _WORDS:
        return items
    return items.with_columns(pl.col("categories").str.replace_all(" ", ", ", literal=True))


def _scan(file: SourceFile) -> tuple[Table, dict[str, str]]:
    """Return a file's rows, and the types of its columns by their names."""
    table = scan_separated(file, "\t")
    headings = [(heading.rpartition(":"), column) for heading, column in table.columns.items()]
    columns = {name or kind: column for (name, _, kind), column in headings}
    return replace(table, columns=columns), {name: kind for (name, _, kind), _ in headings}


RECBOLE = Layout(atomic_events, atomic_items, ("*.inter", "*.inter.gz"), ("*.item", "*.item.gz"))
