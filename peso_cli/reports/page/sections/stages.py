"""How methods fare from stage to stage: curves, and their figures for those who want the numbers."""

from __future__ import annotations

from dataclasses import replace

from peso_cli.reports.averages import averaged, figure_names, figure_of
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.model import Column, Row, Table
from peso_cli.reports.page import tables
from peso_cli.reports.page.charts import charts
from peso_cli.reports.page.html import folded
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.plots import stages
from peso_cli.reports.selection import Group

TITLE = "Stage by stage"

_TOLD = "A line for each method goes through its figure of every stage; the table below the picture holds the numbers."


def build(subject: Subject) -> Section:
    """Return the section of a group."""
    group = subject.group
    lead = (
        "Each stage's model on the test users of its own stage. Popularity says how easy a stage is: where it rises, "
        "all methods may."
    )
    numbers = (tables.figures(_by_stage(group, name)) for name in last_of_each_kind(figure_names(group)))
    parts = charts(stages.draw(group), f"{subject.anchor}-stages", _TOLD), folded("The numbers", *numbers)
    return Section(lead, parts, (subject.again("plot", "stages"),))


def _by_stage(group: Group, name: str) -> Table:
    alone = [replace(group, stages=(stage,)) for stage in group.stages]
    columns = tuple(Column(f"stage {stage}") for stage in group.stages)
    take = figure_of(name)
    rows = (Row(v.name, tuple(averaged(of, v, take) for of in alone)) for v in group.variants)
    return Table(f"{group.title}: {name} by stage", "method", columns, tuple(rows)).marked()
