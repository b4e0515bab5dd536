"""Figures by user group: new, returning, dormant until now."""

from __future__ import annotations

import numpy as np

from peso_cli.evaluation.groups import GROUPS
from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.analysis.stacking import Places, binned
from peso_cli.reports.model import Table

_NOTE = (
    "user group: new users have no events before the stage, returning ones were there in the stage just before, "
    "dormant ones in an earlier one; unknown, where that stage's data are missing."
)


def build(evidence: Evidence) -> list[Table]:
    """Return the table of a group; raises as `Evidence.predictions`."""
    return [binned(evidence, "user group", GROUPS, _places(evidence), _NOTE)]


def _places(evidence: Evidence) -> Places:
    return lambda r: (evidence.predictions(r).groups[:, None] == np.array(GROUPS, dtype=object)).argmax(axis=1)
