"""Whether methods differ from the baseline, in a sentence and as tables."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from peso_cli.reports.averages import unfilled
from peso_cli.reports.filling import train_command
from peso_cli.reports.model import Table
from peso_cli.reports.page import tables
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.tables import significance

_LEVEL = 0.05
TITLE = "Is it chance?"
_NAMED = 6
"""Methods that a sentence names; more of them it counts."""

_OTHER = ("peso", "single")
"""One of these is another method than the baseline."""

_SIDES = (("above", True), ("below", False))


def build(subject: Subject) -> Section:
    """Return the section of a group.

    Raises:
        InputError: two runs scored different users.
        RunError: predictions can't be read.
    """
    group = subject.group
    found = significance.build(group)
    if not found:
        return Section(f"This needs {significance.NEEDS}.", commands=tuple(_filling(subject)))
    lead = " ".join(_sentence(table, group.baseline) for table in found)
    shown = tuple(tables.figures(table) for table in found)
    return Section(f"{lead} {_seeds(found)}", shown, (subject.again("tables", "significance"),))


def _sentence(table: Table, baseline: str) -> str:
    """Say which methods of a table are above and below the baseline by more than chance."""
    figure = table.title.partition(": ")[2].partition(" ")[0]
    at = [column.name for column in table.columns].index("p (Holm)")
    told = [row for row in table.rows if (row.cells[at].mean or 0.0) < _LEVEL]
    others = len(table.rows) - len(told)
    if not told:
        whom = "the other method can't" if others == 1 else f"none of the {others} other methods can"
        return f"By {figure}, {whom} be told apart from {baseline}."
    sides = [(side, [row.name for row in told if ((row.cells[0].mean or 0.0) > 0) == up]) for side, up in _SIDES]
    parts = " and ".join(f"{_named(names)} {side} {baseline}" for side, names in sides if names)
    rest = f"; the other {f'{others} methods' if others > 1 else 'method'} can't be told apart from it" * (others > 0)
    return f"By {figure}, {parts} by more than chance explains (corrected p below {_LEVEL}){rest}."


def _named(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} lies"
    if len(names) > _NAMED:
        return f"{len(names)} methods lie"
    return f"{', '.join(names[:-1])} and {names[-1]} lie"


def _seeds(found: Sequence[Table]) -> str:
    seeds = {row.cells[-1].mean for table in found for row in table.rows}
    return "With a single seed this says nothing of how another seed would turn out." if seeds == {1} else ""


def _filling(subject: Subject) -> Iterator[str]:
    """Yield the commands that bring about a baseline and another method that can be compared."""
    group, methods = subject.group, [variant.method for variant in subject.group.variants]
    wanted, like = group.baseline.partition(" ")[0], group.variants[0].any
    if not wanted:
        yield f"{subject.again('report')} --baseline {methods[0]}"
    elif wanted in methods and group.baseline not in [variant.name for variant in group.variants]:
        names = [variant.name for variant in group.variants if variant.method == wanted]
        yield from (f"{subject.again('report')} --baseline {shlex.quote(name)}" for name in names)
    elif wanted not in methods or len(methods) == 1:
        missing = wanted if wanted not in methods else next(method for method in _OTHER if method != wanted)
        yield from (str(train_command(like, seed, group.stages[-1], missing)) for seed in group.seeds)
    else:
        yield from (note.command for note in unfilled(group, group.variants))
