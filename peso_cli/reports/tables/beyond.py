"""Beyond semantic IDs: the figures of main for items, where those that share a semantic ID are told apart."""

from __future__ import annotations

from peso_cli.reports.model import Table
from peso_cli.reports.selection import Group
from peso_cli.reports.standings import standings

NEEDS = "any method trained beyond stage 1"


def build(group: Group) -> list[Table]:
    """Return the table of a group."""
    return [standings(group, "items", item=True)]
