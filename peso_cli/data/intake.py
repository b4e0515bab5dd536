"""Taking in raw interactions: read once, cleaned row by row, ids turned into numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from numpy.typing import NDArray

from peso_cli.data.cleaning import Dropped, Left, Rule, refuse_none_left
from peso_cli.data.event_files import append_events, events_of
from peso_cli.data.ids import Ids
from peso_cli.data.sources.frames import collecting
from peso_cli.data.timestamps import Unit, latest_moment, milliseconds
from peso_cli.errors import InputError

if TYPE_CHECKING:
    from peso_cli.stages import Display

_CHUNK = 500_000
"""Rows that are read at once."""

_SHOWN = 3
"""How many of the rows that a step drops are shown."""


@dataclass(frozen=True, eq=False)
class Intake:
    """Interactions that were taken in.

    Attributes:
        spool: file of their events in the order of the logs, users and items by their numbers in `users` and `items`.
        users: the users.
        items: the items.
        dropped: what each step did.
    """

    spool: Path
    users: Ids
    items: Ids
    dropped: tuple[Dropped, ...]


@dataclass(eq=False)
class _Step:
    """A rule at work: what it has left so far, and where the first rows stand that broke it."""

    rule: Rule
    left: Left = field(default_factory=Left)
    broken: list[int] = field(default_factory=list)

    def apply(self, table: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that count, and take note of them."""
        held = table.select(self.rule.holds.fill_null(False)).to_series()
        if len(self.broken) < _SHOWN:
            self.broken += table["row"].filter(~held).head(_SHOWN - len(self.broken)).to_list()
        kept = table.filter(held)
        self.left.add(kept["user"].to_numpy(), kept["item"].to_numpy())
        return kept


def take_in(events: pl.LazyFrame, rules: Sequence[Rule], unit: Unit, spool: Path, display: Display) -> Intake:
    """Read interactions once, some at a time, and keep those that count.

    Args:
        events: columns of EVENT_SCHEMA.
        rules: the first tells which rows can be read; each of the others sees the rows that those before it leave.
        unit: of numeric timestamps.
        spool: the file to write.
        display: shows progress.

    Raises:
        InputError: a rule that no row may break is broken, or nothing is left.
    """
    users, items, latest = Ids(), Ids(), latest_moment()
    steps, rows, tick = [_Step(rule) for rule in rules], 0, display.bar("reading interactions")
    for chunk in _chunks(events):
        table = chunk.select(
            users.codes("user"),
            items.codes("item"),
            milliseconds(chunk["timestamp"], unit, latest).alias("moment"),
            pl.col("rating").fill_nan(None),
            row=pl.int_range(rows, rows + chunk.height),
        )
        rows += chunk.height
        for step in steps:
            table = step.apply(table)
        append_events(spool, events_of(_numbers(table, "user"), _numbers(table, "item"), _numbers(table, "moment")))
        tick(rows, rows, "")
    return Intake(spool, users, items, tuple(_results(steps, rows, events, display)))


def _chunks(events: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    columns = events.select("user", "item", "timestamp", "rating")
    with collecting("dataset.interactions"):
        yield from columns.collect_batches(chunk_size=_CHUNK, maintain_order=True, engine="streaming")


def _numbers(table: pl.DataFrame, column: str) -> NDArray[Any]:
    return table[column].to_numpy()


def _results(steps: Sequence[_Step], rows: int, events: pl.LazyFrame, display: Display) -> Iterator[Dropped]:
    """Yield what each step did, and say it; raise InputError at the first that may not have."""
    for step in steps:
        count = rows - step.left.rows
        shown = ", ".join(_places(events, step.broken)) if count else ""
        more = ", …" if count > _SHOWN else ""
        if count and step.rule.refusal:
            wrong, remedy = step.rule.refusal
            raise InputError(f"{count:,} of {rows:,} rows {wrong} ({shown}{more}); {remedy}")
        dropped = step.left.since(step.rule.step, rows, f"{shown}{more}")
        display.say(dropped.line)
        refuse_none_left(dropped)
        yield dropped
        rows = step.left.rows


def _places(events: pl.LazyFrame, rows: Sequence[int]) -> list[str]:
    """Return where rows of the logs stand, as their source says it."""
    numbered = events.select("place").with_row_index("row")
    with collecting("dataset.interactions"):
        found = numbered.filter(pl.col("row").is_in(rows)).head(len(rows)).collect(engine="streaming")
    return [place or f"row {row + 1}" for row, place in found.sort("row").iter_rows()]
