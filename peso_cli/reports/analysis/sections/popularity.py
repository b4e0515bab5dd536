"""Figures by how popular the target is."""

from __future__ import annotations

from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.measures import popularity_classes
from peso_cli.reports.analysis.stacking import Places, binned
from peso_cli.reports.model import Table

_BINS = ("head", "middle", "tail", "new")
_NOTE = (
    "popularity: training events of the target in the stages up to the user's; the most popular items, which hold a "
    "third of all events, are the head, those of the next third the middle, of the last the tail; new ones have none."
)


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group; raises as `Evidence.facts`."""
    return [binned(evidence, "target popularity", _BINS, _places(evidence), _NOTE)]


def _places(evidence: Evidence) -> Places:
    return lambda record: popularity_classes(evidence.facts(record).taken)[evidence.facts(record).targets]
