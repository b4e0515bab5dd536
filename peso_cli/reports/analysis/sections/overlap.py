"""Whom two methods serve: the one alone, the other alone, both; and what a perfect choice between them reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from peso_cli.errors import InputError
from peso_cli.reports.analysis import measures
from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.averages import ITEM_HIT, over
from peso_cli.reports.model import Cell, Column, Footnote, Row, Table, cell_of
from peso_cli.reports.selection import Group, Variant

_MOST = 6
"""Beyond so many methods, each is compared with the baseline alone."""

_COLUMNS = {
    "first": "only first",
    "second": "only second",
    "both": "both",
    "union": "either (oracle)",
    "jaccard": "Jaccard",
}
_NOTES = (
    "shares of the users whose target is within the first {k} of the first method alone, of the second alone, of both, "
    "of either (what a choice between the two that is always right would reach); Jaccard: both by either",
    "a target among items that share a semantic ID is a hit in part; the smaller part of the two is in both",
)


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group.

    Raises:
        InputError: there is one method alone, or predictions are of an older version.
        RunError: they are damaged.
    """
    group = evidence.group
    rows = [Row(f"{a.name} | {b.name}", _cells(evidence, a, b)) for a, b in _pairs(group)]
    if not rows:
        raise InputError(f"needs a second method beside {group.variants[0].name}")
    columns = (*(Column(name, better="none") for name in _COLUMNS.values()), Column("users", ",.0f", "none"))
    title = f"{group.title}: overlap of hits, recall@{evidence.k}, {over(group)}"
    notes = [*_fewer(group), *(text.format(k=evidence.k) for text in _NOTES), ITEM_HIT]
    return [Table(title, "first | second", columns, tuple(rows), tuple(map(Footnote, notes)))]


def _pairs(group: Group) -> Sequence[tuple[Variant, Variant]]:
    """Return the pairs that are compared, the baseline first in its own."""
    ordered = sorted(group.variants, key=lambda variant: variant.name != group.baseline)
    pairs = list(combinations(ordered, 2))
    return pairs[: len(ordered) - 1] if _only_with(group) else pairs


def _only_with(group: Group) -> Variant | None:
    """Return the baseline, where methods are too many to compare each with each."""
    rows = [variant for variant in group.variants if variant.name == group.baseline]
    return rows[0] if rows and len(group.variants) > _MOST else None


def _fewer(group: Group) -> Iterator[str]:
    if baseline := _only_with(group):
        yield f"of more than {_MOST} methods each is compared with {baseline.name} alone; choose some by method="


def _cells(evidence: Evidence, one: Variant, other: Variant) -> tuple[Cell, ...]:
    """Return the means over seeds of the means over stages, of the seeds of which both have all stages."""
    stages = evidence.group.stages
    seeds = [s for s in evidence.group.seeds if all((s, t) in v.records for v in (one, other) for t in stages)]
    found = [[_overlap(evidence, one, other, (seed, stage)) for stage in stages] for seed in seeds]
    whole = [[each for each in by_stage if each] for by_stage in found if all(by_stage)]
    why = "they scored different users" if found else "they share no seed that has all stages"
    cells = [cell_of([_mean(by_stage, name) for by_stage in whole], why) for name in _COLUMNS]
    users = Cell(sum(each["users"] for each in whole[0]), count=1) if whole else Cell(missing=why)
    return (*cells, users)


def _mean(by_stage: Sequence[Mapping[str, float]], name: str) -> float:
    """Average over stages; a Jaccard index is there only where anybody is served, and is 0 where that is nowhere."""
    known = [each[name] for each in by_stage if not np.isnan(each[name])]
    return float(np.mean(known)) if known else 0.0


def _overlap(evidence: Evidence, one: Variant, other: Variant, place: tuple[int, int]) -> dict[str, float] | None:
    """Return the overlap of a seed and stage; None where users or targets differ."""
    records = one.records[place], other.records[place]
    if not all(record.own for record in records):
        return None
    first, second = (evidence.predictions(record) for record in records)
    if not (np.array_equal(first.users, second.users) and np.array_equal(first.targets, second.targets)):
        return None
    hits = (found.figures(evidence.k)[f"recall@{evidence.k}"] for found in (first, second))
    return {**measures.overlap(*hits), "users": float(len(first.users))}
