"""Figures by user group: new in a stage, returning from the one before, dormant until now (the paper's Table 3)."""

from __future__ import annotations

from peso_cli.reports.averages import HIT, Take, compared, figure_names
from peso_cli.reports.beside import with_published
from peso_cli.reports.model import Column, Footnote, Table
from peso_cli.reports.selection import Group

NEEDS = "any method trained beyond stage 1"

_GROUPS = ("new", "returning", "dormant")
_WANTED = ("ndcg@5", "recall@10")


def build(group: Group) -> list[Table]:
    """Return the table of a group."""
    figures = [name for name in _WANTED if name in figure_names(group)] or list(figure_names(group)[:1])
    takes = {Column(f"{users}.{name}"): _figure(users, name) for name in figures for users in _GROUPS}
    table = compared(group, "by user group", takes)
    names = [column.name for column in takes]
    return [with_published(table, group, "groups", names).noting(Footnote(HIT))]


def _figure(users: str, name: str) -> Take:
    return lambda record: record.groups().get(users, {}).get(name)
