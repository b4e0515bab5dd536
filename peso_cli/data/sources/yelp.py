"""The Yelp academic dataset: reviews and businesses as JSON lines."""

from __future__ import annotations

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns, RawDataset
from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.json_lines import scan_json_lines
from peso_cli.data.sources.layouts import Layout
from peso_cli.data.sources.table import events_of, items_of, known_of

_EVENTS = EventColumns(user="user_id", item="business_id", timestamp="date", rating="stars")
_ITEMS = ItemColumns(item="business_id", title="name", description="city", brand=None, categories="categories")


def _events(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    return events_of(scan_json_lines(file, ("user_id", "business_id", "date", "stars")), _EVENTS)


def _items(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    table = scan_json_lines(file, ("business_id", "name", "city"), ("categories",))
    return items_of(table, known_of(table, _ITEMS))


YELP = Layout(_events, _items, ("*review.json", "*review.json.gz"), ("*business.json", "*business.json.gz"))
