"""Figures by how far a user's recent events lie from those before."""

from __future__ import annotations

import numpy as np

from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.stacking import Places, binned
from peso_cli.reports.model import Table

_BINS = ("little", "some", "much", "no past")
_NOTE = (
    "drift: half the summed differences between the shares that the first codes of semantic IDs have among a user's "
    "events of the stage and among those before it (total variation, 0 to 1): little is below a third, much above two "
    "thirds; who is new has no past."
)


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group; raises as `Evidence.facts`."""
    return [binned(evidence, "user drift", _BINS, _places(evidence), _NOTE)]


def _places(evidence: Evidence) -> Places:
    # What isn't a number comes last when sorted into bins.
    return lambda record: np.searchsorted((1 / 3, 2 / 3, 1.5), evidence.facts(record).drift, side="right")
