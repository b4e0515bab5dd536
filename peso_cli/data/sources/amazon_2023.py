"""Amazon Reviews 2023 (Hou et al. 2024): reviews and metadata as JSON lines, and the benchmark's CSV files."""

from __future__ import annotations

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns, RawDataset
from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.json_lines import scan_json_lines
from peso_cli.data.sources.layouts import Layout
from peso_cli.data.sources.separated import scan_separated
from peso_cli.data.sources.table import events_of, items_of, known_of

_EVENTS = EventColumns(user="user_id", item="parent_asin", timestamp="timestamp", rating="rating")
_ITEMS = ItemColumns(
    item="parent_asin", title="title", description="description", brand="store", categories="categories"
)


def _events(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    if file.path.suffix == ".csv":
        return events_of(scan_separated(file, ",", '"'), _EVENTS)
    return events_of(scan_json_lines(file, ("user_id", "parent_asin", "timestamp", "rating")), _EVENTS)


def _items(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    table = scan_json_lines(file, ("parent_asin", "title", "store"), ("description", "categories"))
    return items_of(table, known_of(table, _ITEMS))


AMAZON_2023 = Layout(
    _events, _items, ("*.jsonl", "*.jsonl.gz", "*.csv", "*.csv.gz"), ("meta_*.jsonl", "meta_*.jsonl.gz")
)
