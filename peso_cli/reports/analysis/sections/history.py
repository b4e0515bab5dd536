"""Figures by how many items the model read."""

from __future__ import annotations

from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.stacking import binned, place_in, spans
from peso_cli.reports.model import Table

_STARTS = (0, 5, 10, 15, 20)
_NOTE = "history: the items that the model read, at most prompt.window of them."


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group; raises as `Evidence.predictions`."""
    bins = spans(_STARTS)
    return [
        binned(
            evidence,
            "history length",
            bins,
            lambda r: place_in(evidence.predictions(r).history_lengths, _STARTS),
            _NOTE,
        )
    ]
