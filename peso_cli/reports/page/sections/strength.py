"""How the strength of a regularizer matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from peso_cli.reports.filling import train_command
from peso_cli.reports.page import tables
from peso_cli.reports.page.charts import charts
from peso_cli.reports.page.html import folded
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.plots import strength as plot
from peso_cli.reports.selection import Group
from peso_cli.reports.tables import strength

TITLE = "Strength of the regularizer"
_TOLD = "A line for each method goes through its figure at every strength; tables below hold the numbers."
_KEY = "regularizer.strength"


def build(subject: Subject) -> Section:
    """Return the section of a group."""
    group = subject.group
    found = strength.build(group)
    if not found:
        return Section("This needs one method with several strengths of its regularizer.", (), tuple(_other(group)))
    lead = "Too weak, and the stage before is forgotten; too strong, and the new one isn't learnt."
    numbers = folded("The numbers", *map(tables.figures, found))
    parts = charts(plot.draw(group), f"{subject.anchor}-strength", _TOLD), numbers
    return Section(lead, parts, (subject.again("plot", "strength"), subject.again("tables", "strength")))


def _other(group: Group) -> Iterator[str]:
    """Yield the commands that train a method with another strength: ten times its own, or peso where none has one."""
    like = next((v.any for v in group.variants if _KEY in v.any.settings), None)
    for seed in group.seeds:
        if like is None:
            yield str(train_command(group.variants[0].any, seed, group.stages[-1], "peso"))
        else:
            settings = {**like.settings, _KEY: 10 * float(like.settings[_KEY]) or 1.0}
            yield str(train_command(replace(like, settings=settings), seed, group.stages[-1]))
