"""Whom a method serves: new, returning and dormant users."""

from __future__ import annotations

from peso_cli.reports.averages import unfilled
from peso_cli.reports.page import tables
from peso_cli.reports.page.charts import charts
from peso_cli.reports.page.html import folded
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.plots import groups as plot
from peso_cli.reports.tables import groups

TITLE = "New, returning and dormant users"
_TOLD = "A bar for each method and user group; the table below the picture holds the numbers."


def build(subject: Subject) -> Section:
    """Return the section of a group."""
    group = subject.group
    found = groups.build(group)
    if all(cell.mean is None for table in found for row in table.rows for cell in row.cells):
        commands = tuple(note.command for note in unfilled(group, group.variants))
        return Section("This needs a method that has all stages, with users in any of the groups.", (), commands)
    lead = (
        "New users have no events before the stage, returning ones were there in the stage just before, and dormant "
        "ones come back after at least one stage without them."
    )
    numbers = folded("The numbers", *(tables.figures(table) for table in found))
    parts = charts(plot.draw(group), f"{subject.anchor}-groups", _TOLD), numbers
    return Section(lead, parts, (subject.again("plot", "groups"), subject.again("tables", "groups")))
