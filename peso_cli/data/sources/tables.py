"""Tables whose columns the configuration names: CSV, TSV, JSON lines and Parquet."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns, RawDataset
from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.frames import collecting
from peso_cli.data.sources.json_lines import scan_json_lines
from peso_cli.data.sources.layouts import Layout
from peso_cli.data.sources.separated import scan_separated
from peso_cli.data.sources.table import ROW, Table, events_of, items_of
from peso_cli.errors import InputError


def event_columns(config: RawDataset) -> EventColumns:
    """Return what the columns of interactions are called.

    Raises:
        InputError: the configuration doesn't say.
    """
    if config.columns is None:
        raise InputError(f"dataset.columns: missing; dataset.source={config.source} needs the names of the columns")
    return config.columns


def item_columns(config: RawDataset) -> ItemColumns:
    """Return what the columns of items are called.

    Raises:
        InputError: the configuration doesn't say.
    """
    if config.item_columns is None:
        raise InputError(f"dataset.item_columns: missing; dataset.source={config.source} needs the names of columns")
    return config.item_columns


def scan_parquet(file: SourceFile) -> Table:
    """Return the rows of a Parquet file; a place is the number of a row, from 1.

    Raises:
        InputError: it isn't one.
    """
    rows = pl.scan_parquet(file.path, row_index_name=ROW, glob=False)
    with collecting(file.shown):
        names = [name for name in rows.collect_schema() if name != ROW]
    return Table(rows, {name: name for name in names}, file.shown, 1)


_Names = tuple[str | None, ...]


def _layout(scan: Callable[[SourceFile, _Names, _Names], Table], *endings: str) -> Layout:
    """Return the layout of tables.

    Args:
        scan: gives the rows of a file; is told the columns of single values, and those of texts.
        endings: how names of files end.
    """

    def events(file: SourceFile, config: RawDataset) -> pl.LazyFrame:
        names = event_columns(config)
        table = scan(file, (names.user, names.item, names.timestamp, names.rating), ())
        return events_of(table, names, "dataset.columns")

    def items(file: SourceFile, config: RawDataset) -> pl.LazyFrame:
        names = item_columns(config)
        table = scan(file, (names.item,), (names.title, names.description, names.brand, names.categories))
        return items_of(table, names, "dataset.item_columns")

    patterns = tuple(f"*{ending}" for ending in endings)
    return Layout(events, items, patterns, patterns)


CSV = _layout(lambda file, *_: scan_separated(file, ",", '"'), ".csv", ".csv.gz")
TSV = _layout(lambda file, *_: scan_separated(file, "\t", '"'), ".tsv", ".tsv.gz")
JSONL = _layout(scan_json_lines, ".jsonl", ".jsonl.gz")
PARQUET = _layout(lambda file, *_: scan_parquet(file), ".parquet")
