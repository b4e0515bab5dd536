"""`peso tables`: results of many runs, made from finished artifacts alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from peso_cli.commands.output import check_options, print_tables
from peso_cli.errors import RunError
from peso_cli.reports import tables as package
from peso_cli.reports.choice import STRENGTH, contests, unscored
from peso_cli.reports.model import Footnote, Gap, Table
from peso_cli.reports.rooms import Room, finished
from peso_cli.reports.selection import Group
from peso_cli.terminal import TerminalDisplay, warn

_ROOM = Room(package, "tables", "table")

Groups = Callable[[bool, Callable[[str], None]], list[Group]]
"""Collects what is to be shown, given whether only chosen variants are, and what is told of damaged artifacts."""


def table_names() -> tuple[str, ...]:
    """Return the tables that there are: a module each."""
    return _ROOM.names


def tables(
    name: str,
    output: Path,
    words: list[str],
    format: str,
    baseline: str,
    mix: bool,
    chosen: bool = False,
    run_missing: bool = False,
    config_dir: Path | None = None,
) -> None:
    """Print a table of what is finished under a folder.

    Args:
        name: one of `table_names()`.
        output: the folder that holds the runs.
        words: filters such as `method=peso,single`.
        format: `terminal`, `markdown`, `latex`, `csv` or `json`.
        baseline: the row over which gains are taken; empty for none.
        mix: whether runs that can't be compared may stand in one table.
        chosen: whether, of variants that differ only in their strength, only the one chosen on validation stays.
        run_missing: whether to fill first what the table lacks.
        config_dir: the user's own config folder that choices may come from.

    Raises:
        InputError: there is no such table, format or folder, a filter is wrong, nothing fits, runs can't be compared,
            or figures that a choice rests on are missing.
        RunError: something that is missing couldn't be filled.
    """
    check_options(format, config_dir)
    module = _ROOM.module(name)
    # A table may compare what others keep apart.
    regrouped: Callable[[list[Group]], list[Group]] = getattr(module, "regrouped", list)

    def groups(only_chosen: bool, warn: Callable[[str], None]) -> list[Group]:
        return regrouped(finished(output, words, baseline, mix, warn, only_chosen, config_dir))

    failed = _fill(lambda: _gaps(module.build, groups, chosen)) if run_missing else 0
    made = _ROOM.something(name, _build(module.build, groups(chosen, warn)))
    print_tables(made, format)
    if failed:
        raise RunError(f"{failed} of the commands that fill the table failed, as said above")


def _build(build: Callable[[Group], list[Table]], groups: Iterable[Group]) -> list[Table]:
    """Return the tables of all groups, each once: groups may share what a table is of, such as a dataset."""
    found = [table.noting(*map(Footnote, group.notes)) for group in groups for table in build(group)]
    return list(dict.fromkeys(found))


def _gaps(build: Callable[[Group], list[Table]], groups: Groups, chosen: bool) -> list[Gap]:
    """Return what is missing: first of all that without which nothing can be chosen."""
    notes: list[Footnote] = []
    if chosen:
        rivals = [found for group in groups(False, _ignore) for found in contests(group.variants, [STRENGTH])]
        notes = [note for found in rivals for note in unscored(found)]
    notes = notes or [note for table in _build(build, groups(chosen, _ignore)) for note in table.footnotes]
    return [note.gap for note in notes if note.gap is not None]


def _ignore(line: str) -> None:
    """Say nothing: what is left out is told when the table is made."""


def _fill(gaps: Callable[[], list[Gap]]) -> int:
    from peso_cli.commands.fill import fill

    with TerminalDisplay() as display:
        return fill(gaps, display)
