"""Figures by how long the target has been there."""

from __future__ import annotations

from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.stacking import binned, place_in
from peso_cli.reports.model import Table

_BINS = ("this stage", "1 stage ago", "2 stages ago", "3 or more stages ago")
_NOTE = "age: when the target had its first event, anybody's."


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group; raises as `Evidence.facts`."""
    starts = range(len(_BINS))
    return [binned(evidence, "target age", _BINS, lambda r: place_in(evidence.facts(r).ages, starts), _NOTE)]
