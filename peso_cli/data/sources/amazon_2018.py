"""Amazon Reviews 2018 (Ni et al. 2019): reviews and metadata as JSON lines, and the CSV files of ratings alone."""

from __future__ import annotations

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns, RawDataset
from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.json_lines import scan_json_lines
from peso_cli.data.sources.layouts import Layout
from peso_cli.data.sources.separated import scan_separated
from peso_cli.data.sources.table import events_of, items_of, known_of

_EVENTS = EventColumns(user="reviewerID", item="asin", timestamp="unixReviewTime", rating="overall")
_RATINGS = EventColumns(user="user", item="item", timestamp="timestamp", rating="rating")
_ITEMS = ItemColumns(item="asin", title="title", description="description", brand="brand", categories="category")


def _events(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    if file.path.suffix == ".csv":
        return events_of(scan_separated(file, ",", names=("item", "user", "rating", "timestamp")), _RATINGS)
    return events_of(scan_json_lines(file, ("reviewerID", "asin", "unixReviewTime", "overall")), _EVENTS)


def _items(file: SourceFile, _: RawDataset) -> pl.LazyFrame:
    table = scan_json_lines(file, ("asin", "title", "brand"), ("description", "category"))
    return items_of(table, known_of(table, _ITEMS))


AMAZON_2018 = Layout(_events, _items, ("*.json", "*.json.gz", "*.csv", "*.csv.gz"), ("meta_*.json", "meta_*.json.gz"))
