"""Whom a method serves worst, and how unequally it shows the catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from peso_cli.evaluation.groups import GROUPS
from peso_cli.reports.analysis import measures
from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.stacking import by_stage
from peso_cli.reports.averages import ITEM_HIT, Take, compared
from peso_cli.reports.collected import Record
from peso_cli.reports.model import Column, Footnote, Table

_GROUPS = tuple(name for name in GROUPS if name != "unknown")

_NOTES = (
    "worst group, gap: of a stage's user groups (new, returning, dormant) the lowest recall@{k} of items, and the "
    "highest minus that; a group of few users moves by chance alone, so the smallest group's size stands beside them",
    "Gini: of how often each visible item stands within anybody's first {k}: 0 where all do equally often, near 1 "
    "where one item has it all; items that share a semantic ID share its places",
)


def build(evidence: Evidence) -> list[Table]:
    """Return the means over stages, and the stages; raises as `Evidence.facts`."""
    figure, group = evidence.names[0], evidence.group
    whole: dict[Column, Take] = {
        Column(f"worst group {figure}"): evidence.taking(lambda r: min(_groups(evidence, r).values(), default=np.nan)),
        Column("gap", better="lowest"): evidence.taking(lambda r: _gap(_groups(evidence, r))),
        Column("Gini", better="lowest"): evidence.taking(lambda r: measures.gini(evidence.exposure(r))),
    }
    each = {Column(name): evidence.taking(_of(evidence, name)) for name in _GROUPS}
    smallest = {Column("smallest group", ",.0f", "none"): evidence.taking(lambda r: _smallest(evidence, r))}
    notes = [Footnote(text.format(k=evidence.k)) for text in (*_NOTES, ITEM_HIT)]
    mean = compared(group, "fairness", whole)
    return [mean.noting(*notes), by_stage(group, f"fairness, {figure} by user group", {**each, **whole, **smallest})]


def _members(evidence: Evidence, record: Record) -> Mapping[str, NDArray[np.bool_]]:
    """Return which users are in each of the groups that have any."""
    groups = evidence.predictions(record).groups
    return {name: groups == name for name in _GROUPS if (groups == name).any()}


def _groups(evidence: Evidence, record: Record) -> dict[str, float]:
    """Return the recall of each group."""
    recall = evidence.figures(record)[evidence.names[0]]
    return {name: float(recall[rows].mean()) for name, rows in _members(evidence, record).items()}


def _of(evidence: Evidence, name: str) -> Callable[[Record], float]:
    return lambda record: _groups(evidence, record).get(name, np.nan)


def _gap(groups: Mapping[str, float]) -> float:
    return max(groups.values()) - min(groups.values()) if groups else np.nan


def _smallest(evidence: Evidence, record: Record) -> float:
    return float(min((rows.sum() for rows in _members(evidence, record).values()), default=np.nan))
