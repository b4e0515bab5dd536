"""How much of the catalog a method recommends at all, and how little known that is."""

from __future__ import annotations

import numpy as np

from peso_cli.reports.analysis import measures
from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.averages import compared
from peso_cli.reports.collected import Record
from peso_cli.reports.model import Column, Footnote, Table

_NOTES = (
    "coverage: the share of the stage's visible items that anybody is recommended within the first {k}; items that "
    "share a semantic ID are recommended together",
    "novelty: mean self-information of the first {k}, -log2 of an item's share of the training events so far, in bits "
    "(Vargas and Castells, RecSys 2011); of a semantic ID its first item counts",
)


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group; raises as `Evidence.facts`."""

    def coverage(record: Record) -> float:
        return float(np.mean(evidence.exposure(record) > 0))

    def novelty(record: Record) -> float:
        return measures.novelty(evidence.listed(record), evidence.facts(record).taken)

    takes = {
        Column(f"coverage@{evidence.k}"): evidence.taking(coverage),
        Column("novelty", ".2f", "none"): evidence.taking(novelty),
    }
    table = compared(evidence.group, "coverage and novelty", takes, absent=False)
    return [table.noting(*(Footnote(text.format(k=evidence.k)) for text in _NOTES))]
