"""What a method forgets and carries forward."""

from __future__ import annotations

from peso_cli.reports.model import Table
from peso_cli.reports.page import tables
from peso_cli.reports.page.charts import charts
from peso_cli.reports.page.html import folded
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.plots import forgetting as plot
from peso_cli.reports.tables import forgetting

TITLE = "Forgetting"
_TOLD = "Rows are models after each stage, columns the stages whose users they serve; tables below hold the numbers."


def build(subject: Subject) -> Section:
    """Return the section of a group."""
    group = subject.group
    transfers, *matrices = forgetting.build(group)
    if not any(map(_scored_elsewhere, matrices)):
        commands = dict.fromkeys(note.command for table in matrices for note in table.footnotes if note.command)
        needs = "This needs models that were scored on the test users of stages other than their own."
        return Section(needs, (), tuple(commands))
    lead = (
        "Each stage's model on the test users of every stage. Below the diagonal is what is left of earlier stages, "
        "right above it what users of the next stage get before the model has learnt of them."
    )
    numbers = folded("The numbers of each method", *map(tables.figures, matrices))
    parts = (tables.figures(transfers), charts(plot.draw(group), f"{subject.anchor}-forgetting", _TOLD), numbers)
    return Section(lead, parts, (subject.again("plot", "forgetting"), subject.again("tables", "forgetting")))


def _scored_elsewhere(matrix: Table) -> bool:
    """Tell whether any model has a figure off the diagonal."""
    cells = ((place, at, cell) for place, row in enumerate(matrix.rows) for at, cell in enumerate(row.cells[:-1]))
    return any(cell.mean is not None for place, at, cell in cells if place != at)
