"""`peso tables`: results of many runs, made from finished artifacts alone."""

from __future__ import annotations

import sys
from pathlib import Path

from peso_cli.errors import InputError, nearest
from peso_cli.reports import tables as package
from peso_cli.reports.model import Table
from peso_cli.reports.render import TEXTS, show
from peso_cli.reports.rooms import Room, finished
from peso_cli.terminal import ERR, OUT

_ROOM = Room(package, "tables", "table")


def table_names() -> tuple[str, ...]:
    """Return the tables that there are: a module each."""
    return _ROOM.names


def tables(name: str, output: Path, words: list[str], format: str, baseline: str, mix: bool) -> None:
    """Print a table of what is finished under a folder.

    Args:
        name: one of `table_names()`.
        output: the folder that holds the runs.
        words: filters such as `method=peso,single`.
        format: `terminal`, `markdown`, `latex`, `csv` or `json`.
        baseline: the row over which gains are taken; empty for none.
        mix: whether runs that can't be compared may stand in one table.

    Raises:
        InputError: there is no such table or format, a filter is wrong, nothing fits, or runs can't be compared.
    """
    if format != "terminal" and format not in TEXTS:
        raise InputError(f"--format {format}: give terminal, {', '.join(TEXTS)}{nearest(format, TEXTS)}")
    made = _make(name, output, words, baseline, mix)
    if format == "terminal":
        show(made, OUT)
    else:
        sys.stdout.write(TEXTS[format](made))


def _make(name: str, output: Path, words: list[str], baseline: str, mix: bool) -> list[Table]:
    module = _ROOM.module(name)
    groups = finished(output, words, baseline, mix, lambda line: ERR.print(line, markup=False))
    return _ROOM.something(name, [table for group in groups for table in module.build(group)])
