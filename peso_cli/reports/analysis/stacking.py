"""Tables of methods within each of several parts: bins of users, stages, probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from peso_cli.reports.analysis.evidence import Evidence, once
from peso_cli.reports.averages import ITEM_HIT, Take, compared
from peso_cli.reports.collected import Record
from peso_cli.reports.model import Cell, Column, Footnote, Table
from peso_cli.reports.selection import Group

Places = Callable[[Record], NDArray[np.int64]]
"""Tells in which bin each user of a record is."""

_USERS = "Users are those of all stages together."


def binned(evidence: Evidence, title: str, bins: Sequence[str], places: Places, note: str) -> Table:
    """Return the figures of items in each bin of users, averaged over stages and seeds; bins without users are named.

    Args:
        evidence: the runs.
        title: what the bins are of.
        bins: their names.
        places: (n,) the bin of each user of a record.
        note: what is to be known of the bins.
    """
    placed = once(places)
    parts = {name: _part(evidence, title, placed, number) for number, name in enumerate(bins)}
    found = {name: part for name, part in parts.items() if any(row.cells[0].mean for row in part.rows)}
    empty = [name for name in bins if name not in found]
    table = stacked(found or {bins[0]: replace(parts[bins[0]], rows=())}, title, parts[bins[0]].title)
    notes = [Footnote(f"no users: {', '.join(empty)}")] if empty else []
    return table.noting(Footnote(f"{note} {_USERS}"), *notes, Footnote(ITEM_HIT))


def _part(evidence: Evidence, title: str, places: Places, number: int) -> Table:
    """Return the table of one bin: how many users it has in all stages together, and their figures."""

    def mean(record: Record, name: str) -> float:
        found = evidence.figures(record)[name][places(record) == number]
        return float(found.mean()) if len(found) else np.nan

    def of(name: str) -> Callable[[Record], float]:
        return lambda record: mean(record, name)

    takes = {Column(name): evidence.taking(of(name)) for name in evidence.names}
    table = compared(evidence.group, f"by {title}", takes, absent=False)
    counts = _counts(evidence, places, number)
    return replace(
        table,
        columns=(Column("users", ",.0f", "none"), *table.columns),
        rows=tuple(replace(row, cells=(counts[row.name], *row.cells)) for row in table.rows),
    )


def _counts(evidence: Evidence, places: Places, number: int) -> Mapping[str, Cell]:
    """Return how many users of a bin each method was scored on, in all stages of a seed together."""
    counts = {}
    for variant in evidence.group.variants:
        records = [r for r in variant.records.values() if r.own and r.place.seed == variant.any.place.seed]
        counts[variant.name] = Cell(float(sum((places(r) == number).sum() for r in records)), count=1)
    return counts


def stacked(parts: Mapping[str, Table], head: str, title: str) -> Table:
    """Return tables of the same columns one below the other; rows are named by their part, and notes stand once."""
    first = next(iter(parts.values()))
    rows = [replace(row, name=f"{name}: {row.name}") for name, table in parts.items() for row in table.rows]
    notes = dict.fromkeys(note for table in parts.values() for note in table.footnotes)
    return replace(first, title=title, head=f"{head}: method", rows=tuple(rows), footnotes=tuple(notes))


def by_stage(group: Group, title: str, takes: Mapping[Column, Take]) -> Table:
    """Return figures of each stage, averaged over seeds."""
    parts = {
        f"stage {stage}": compared(replace(group, stages=(stage,)), title, takes, absent=False)
        for stage in group.stages
    }
    return stacked(parts, "stage", f"{group.title}: {title} by stage")


def spans(starts: Sequence[int]) -> list[str]:
    """Return the names of bins of whole numbers that begin at these."""
    ends = [f"{start} to {end - 1}" for start, end in pairwise(starts)]
    return [*ends, f"{starts[-1]} or more"]


def place_in(values: NDArray[np.int64], starts: Sequence[int]) -> NDArray[np.int64]:
    """Return (n,) which of the bins that begin at these numbers each value is in."""
    return np.searchsorted(starts, values, side="right") - 1
