"""`peso tables`: results of many runs, made from finished artifacts alone."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path

from peso_cli.errors import InputError, nearest
from peso_cli.reports import tables as rooms
from peso_cli.reports.collected import collect
from peso_cli.reports.model import Table
from peso_cli.reports.render import TEXTS, show
from peso_cli.reports.selection import select
from peso_cli.terminal import ERR, OUT


def table_names() -> tuple[str, ...]:
    """Return the tables that there are: a module each."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(rooms.__path__)))


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
    if name not in table_names():
        raise InputError(f"tables {name}: no such table{nearest(name, table_names())}; there are {_listed()}")
    room = import_module(f"{rooms.__name__}.{name}")
    records = collect(output, lambda line: ERR.print(line, markup=False))
    groups = select(records, words, baseline, mix)
    made: list[Table] = [table for group in groups for table in room.build(group)]
    if not made:
        raise InputError(f"tables {name}: needs {room.NEEDS}; see what there is: peso runs")
    return made


def _listed() -> str:
    return ", ".join(table_names())
