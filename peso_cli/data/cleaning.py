"""Which interactions count: what is dropped, step by step, and what is left after each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso_cli.data.event_files import Events, Parts, Tick, long_runs, run_starts
from peso_cli.data.raw import Cleaning
from peso_cli.data.timestamps import latest_moment, moment_of
from peso_cli.errors import InputError

Duplicates = Literal["events", "pairs", "keep"]


@dataclass(frozen=True)
class Dropped:
    """What one step did.

    Attributes:
        step: its name.
        rows_before: events before it.
        rows_after: events that are left.
        users: users that are left.
        items: items that are left.
        note: what else there is to say.
    """

    step: str
    rows_before: int
    rows_after: int
    users: int
    items: int
    note: str = ""

    @property
    def line(self) -> str:
        """The same in words."""
        note = f" ({self.note})" if self.note else ""
        left = f"{self.rows_after:,} events, {self.users:,} users, {self.items:,} items left"
        return f"{self.step}: {self.rows_before - self.rows_after:,} events dropped, {left}{note}"


@dataclass(frozen=True)
class Rule:
    """A step that looks at one row at a time.

    Attributes:
        step: its name.
        holds: whether a row counts, by its user, item (numbers), moment and rating; null doesn't count.
        refusal: the beginning and the end of what is said where no row may break the rule; None where rows may.
    """

    step: str
    holds: pl.Expr
    refusal: tuple[str, str] | None = None


def rules_of(cleaning: Cleaning) -> list[Rule]:
    """Return the steps that look at one row at a time, in their order.

    Raises:
        InputError: a moment of the settings can't be read.
    """
    refusal = (
        "can't be read: no user, no item, or no moment from 1970-01-02 to tomorrow",
        "mend them, or leave them out by cleaning.on_bad_row=drop",
    )
    readable = pl.all_horizontal(pl.col("user", "item", "moment").is_not_null())
    rules = [Rule("bad rows", readable, refusal if cleaning.on_bad_row == "fail" else None)]
    if cleaning.min_rating is not None:
        rules.append(Rule("without a rating", pl.col("rating").is_not_null()))
        rules.append(Rule("min_rating", pl.col("rating") >= cleaning.min_rating))
    if cleaning.earliest is not None:
        rules.append(Rule("earliest", pl.col("moment") >= moment_of("cleaning.earliest", cleaning.earliest)))
    if cleaning.latest is not None:
        rules.append(Rule("latest", pl.col("moment") < moment_of("cleaning.latest", cleaning.latest)))
    return rules


@dataclass(eq=False)
class Left:
    """Counts what a step leaves while its rows go by."""

    rows: int = 0
    users: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1024, dtype=bool))
    items: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1024, dtype=bool))

    def add(self, users: NDArray[np.uint32], items: NDArray[np.uint32]) -> None:
        """Count the rows of these users and items."""
        self.rows += len(users)
        self.users, self.items = _marked(self.users, users), _marked(self.items, items)

    def since(self, step: str, rows_before: int, note: str = "") -> Dropped:
        """Return what the step did to so many rows."""
        return Dropped(step, rows_before, self.rows, int(self.users.sum()), int(self.items.sum()), note)


def _marked(seen: NDArray[np.bool_], numbers: NDArray[np.uint32]) -> NDArray[np.bool_]:
    highest = int(numbers.max(initial=0))
    if highest >= len(seen):
        seen = np.concatenate([seen, np.zeros(max(len(seen), highest + 1 - len(seen)), dtype=bool)])
    seen[numbers] = True
    return seen


def time_order(events: Events) -> NDArray[np.int64]:
    """Return the places of events user by user, each in time order; events of one moment stay as they were."""
    users, moments = events["user"].astype(np.int64), events["moment"] - events["moment"].min(initial=latest_moment())
    users -= users.min(initial=np.iinfo(np.uint32).max)
    span = int(moments.max(initial=0)) + 1
    if (int(users.max(initial=0)) + 1) * span > np.iinfo(np.int64).max:
        return np.lexsort((moments, users))
    return np.argsort(users * span + moments, kind="stable")  # one key is sorted three times as fast as two


def first_ones(events: Events, duplicates: Duplicates) -> NDArray[np.bool_]:
    """Return (events,) whether an event in time order is none that comes again.

    Args:
        events: user by user, each in time order.
        duplicates: as in Cleaning: what makes two events the same.
    """
    if duplicates == "keep":
        return np.ones(len(events), dtype=bool)
    columns = ("user", "moment") if duplicates == "events" else ("user",)
    starts = run_starts(*(events[name] for name in columns))
    runs = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(events))))
    first = np.zeros(len(events), dtype=bool)
    first[np.unique(runs << 32 | events["item"], return_index=True)[1]] = True
    return first


def keep_in_parts(parts: Parts, keep: Callable[[int, Events], Events], step: str, tick: Tick) -> Dropped:
    """Put in the place of each part what `keep` (part, its events) leaves of it."""
    before, left = 0, Left()
    for part in range(parts.count):
        events = parts.load(part)
        kept = keep(part, events)
        parts.store(part, kept)
        left.add(kept["user"], kept["item"])
        before += len(events)
        tick(part + 1, parts.count, "")
    return left.since(step, before)


def sort_parts(parts: Parts, duplicates: Duplicates, tick: Tick, held: Parts | None = None) -> Dropped:
    """Bring the events of each part in order, user by user and in time, and drop those that come again.

    Args:
        parts: the events.
        duplicates: as in Cleaning: what makes two events the same.
        tick: called with (parts done, parts, "").
        held: events of the same parts that there are already, which count as the first ones.
    """

    def keep(part: int, events: Events) -> Events:
        older = held.load(part) if held else events[:0]
        both = np.concatenate([older, events])
        order = time_order(both)
        return both[order][first_ones(both[order], duplicates) & (order >= len(older))]

    return keep_in_parts(parts, keep, "duplicates", tick)


def to_core(parts: Parts, users: int, items: int, tick: Tick) -> Dropped:
    """Drop users and items with too few events, over and over until nothing changes.

    What is left doesn't depend on the order in which they are dropped: it is the largest set of events in which every
    user and every item has enough.

    Args:
        parts: events user by user.
        users: fewest events of a user.
        items: fewest events of an item.
        tick: called with (parts done, parts, round).
    """
    counts = sum((_item_counts(parts, events) for events in _all(parts)), np.zeros(parts.items, dtype=np.int64))
    before = rows = int(counts.sum())
    for turn in range(1, before + 2):
        left, after = Left(), np.zeros_like(counts)
        for part, events in enumerate(_all(parts)):
            liked = events[counts[events["item"]] >= items]
            kept = liked[long_runs(users, liked["user"])]
            if len(kept) < len(events):
                parts.store(part, kept)
            left.add(kept["user"], kept["item"])
            after += _item_counts(parts, kept)
            tick(part + 1, parts.count, f"round {turn}")
        if left.rows == rows:
            break
        counts, rows = after, left.rows
    return left.since("core", before, f"{turn} rounds")


def _all(parts: Parts) -> Iterator[Events]:
    return (parts.load(part) for part in range(parts.count))


def _item_counts(parts: Parts, events: Events) -> NDArray[np.int64]:
    return np.bincount(events["item"], minlength=parts.items)


def refuse_none_left(dropped: Dropped) -> None:
    """Raise InputError if a step has left nothing."""
    if not dropped.rows_after:
        raise InputError(f"{dropped.step}: none of {dropped.rows_before:,} events is left; ask for less in cleaning")
