"""How the strength of a method's regularizer matters."""

from __future__ import annotations

from peso_cli.reports.model import Table
from peso_cli.reports.selection import Group
from peso_cli.reports.sweeps import sweeps

NEEDS = "one method trained with several strengths, such as regularizer.strength=100 and regularizer.strength=1000"


def build(group: Group) -> list[Table]:
    """Return a table for each method that was trained with several strengths."""
    return sweeps(group, ["regularizer.strength"])
