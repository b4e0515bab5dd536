"""What a method costs: parameters trained, bytes kept, seconds taken."""

from __future__ import annotations

from peso_cli.reports.page import tables
from peso_cli.reports.page.charts import charts
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.plots import efficiency as plot
from peso_cli.reports.tables import efficiency

TITLE = "Cost"

_TOLD = "A point for each method, its figure above what it costs; the tables of results and of cost hold the numbers."


def build(subject: Subject) -> Section:
    """Return the section of a group."""
    group = subject.group
    lead = "What a stage trains, keeps and takes. Points farther up and to the left are better."
    pictures = charts(plot.draw(group), f"{subject.anchor}-cost", _TOLD)
    parts = (*map(tables.figures, efficiency.build(group)), pictures)
    return Section(lead, parts, (subject.again("tables", "efficiency"), subject.again("plot", "efficiency")))
