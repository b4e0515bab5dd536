"""Events on their way from logs to stages: rows of fixed width in temporary files, of which one part is held at a time.

A part holds all events of a range of users, so that whatever concerns one user (order, duplicates, counts) is settled
within a part. How many events a part has doesn't depend on how many there are in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tick = Callable[[int, int, str], None]

Events = NDArray[Any]
"""(events,) of EVENT."""

EVENT = np.dtype([("user", "<u4"), ("item", "<u4"), ("moment", "<i8")])
"""One event: numbers of its user and item, and milliseconds since 1970 UTC."""

_SLICE = 500_000
"""Events that are read at once from a file that isn't in parts yet."""


def events_of(users: NDArray[Any], items: NDArray[Any], moments: NDArray[Any]) -> Events:
    """Put columns together."""
    events = np.empty(len(users), dtype=EVENT)
    events["user"], events["item"], events["moment"] = users, items, moments
    return events


def append_events(path: Path, events: Events) -> None:
    """Write events behind those that a file holds."""
    with path.open("ab") as file:
        events.tofile(file)


def slices(path: Path) -> Iterator[Events]:
    """Yield the events of a file, some at a time."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while len(events := np.fromfile(file, dtype=EVENT, count=_SLICE)):
            yield events


def run_starts(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Return where a row differs from the one before it in any of the columns; the first row does."""
    differs = np.ones(len(columns[0]), dtype=bool)
    differs[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(differs)


def long_runs(fewest: int, *columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether a row is one of at least `fewest` that stand together and agree in all of the columns."""
    lengths = np.diff(np.append(run_starts(*columns), len(columns[0])))
    return np.repeat(lengths >= fewest, lengths)


@dataclass(frozen=True, eq=False)
class Parts:
    """The events of all users, in parts. Within a part the events keep their order.

    Attributes:
        folder: where the files lie.
        part_of: (users,) the part of each user; it never falls from one user to the next.
        items: how many items there may be.
    """

    folder: Path
    part_of: NDArray[np.int32]
    items: int

    @property
    def count(self) -> int:
        """Number of parts."""
        return int(self.part_of[-1]) + 1 if len(self.part_of) else 0

    def load(self, part: int) -> Events:
        """Read a part."""
        path = self._path(part)
        return np.fromfile(path, dtype=EVENT) if path.exists() else np.empty(0, EVENT)

    def store(self, part: int, events: Events) -> None:
        """Put other events in the place of a part's."""
        events.tofile(self._path(part))

    def add(self, events: Events) -> None:
        """Hand events to the parts of their users, behind those that are there."""
        parts = self.part_of[events["user"]]
        order = np.argsort(parts, kind="stable")
        starts = run_starts(parts[order])
        for start, end in zip(starts, np.append(starts, len(order))[1:], strict=True):
            append_events(self._path(int(parts[order[start]])), events[order[start:end]])

    def _path(self, part: int) -> Path:
        return self.folder / f"part_{part}"


def into_parts(
    spool: Path, folder: Path, users: NDArray[np.uint32], items: NDArray[np.uint32], size: int, tick: Tick
) -> Parts:
    """Split a file of events into parts, giving users and items new numbers.

    Args:
        spool: the file.
        folder: where the parts are to lie.
        users: (users,) the new number of each user.
        items: (items,) the new number of each item.
        size: events of a part; one whose last user has many events may be larger by those.
        tick: called with (events done, events, "").
    """
    counts = np.zeros(len(users), dtype=np.int64)
    for events in slices(spool):
        np.add.at(counts, users[events["user"]], 1)
    before = np.cumsum(counts) - counts
    folder.mkdir()
    parts = Parts(folder, (before // size).astype(np.int32), len(items))
    done, total = 0, int(counts.sum())
    for events in slices(spool):
        parts.add(events_of(users[events["user"]], items[events["item"]], events["moment"]))
        done += len(events)
        tick(done, total, "")
    return parts
