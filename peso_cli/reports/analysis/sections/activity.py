"""Figures by how much a user has done so far."""

from __future__ import annotations

from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.stacking import binned, place_in, spans
from peso_cli.reports.model import Table

_STARTS = (0, 5, 10, 20, 50)
_NOTE = "activity: a user's events before the target, in all stages, however many of them the model read."


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group; raises as `Evidence.facts`."""
    return [
        binned(evidence, "activity", spans(_STARTS), lambda r: place_in(evidence.facts(r).activity, _STARTS), _NOTE)
    ]
