"""What every reader of raw interactions gives: lazy tables with fixed columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from peso_cli.errors import InputError

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


@contextmanager
def collecting(name: str = "the source") -> Iterator[None]:
    """Collect lazy tables in here: files show only now whether they can be read to their end.

    Args:
        name: what messages call the files, such as their names.

    Raises:
        InputError: a file can't be read.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise InputError(f"{name}: can't be read ({first_line(error)})") from None


def first_line(error: BaseException) -> str:
    """Return the beginning of what an error says, as far as it fits on one line."""
    lines = " ".join(str(error).strip().split("\n\n")[0].split())
    return lines[:200] or type(error).__name__
