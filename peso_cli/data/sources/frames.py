"""What every reader of raw interactions gives: lazy tables with fixed columns."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

EVENT_SCHEMA = {
    "user": pl.String,
    "item": pl.String,
    "timestamp": pl.String,
    "rating": pl.Float64,
    "place": pl.String,
}
"""Columns of interactions. A row that can't be read has nulls where the trouble is; a timestamp is still as it was
written. `place` says where a row stood, such as `reviews.jsonl:17`, and is worked out only where it is asked for."""

ITEM_SCHEMA = dict.fromkeys(("item", "title", "description", "brand", "categories"), pl.String)
"""Columns of items; null where there is nothing. An item comes once."""


@dataclass(frozen=True)
class Raw:
    """Interactions and items of a source, not yet read.

    Attributes:
        events: columns of EVENT_SCHEMA, in the order of the files.
        items: columns of ITEM_SCHEMA; no rows where the source has no texts.
    """

    events: pl.LazyFrame
    items: pl.LazyFrame
