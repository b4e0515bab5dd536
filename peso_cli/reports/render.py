"""Writing tables: for the terminal, as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from peso_cli.characters import json_text
from peso_cli.reports.model import Cell, Column, Table

DASH = "\N{EN DASH}"
"""Stands where a figure is missing."""

_STYLES = {"": "", "best": "bold", "second": "underline"}
_MARKDOWN = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
_LATEX = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
_LATEX_NAMES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    DASH: r"\textendash{}",
    "±": r"$\pm$",
}


def cell_text(cell: Cell, column: Column) -> str:
    """Return a figure as people read it: its mean, over several seeds with the standard deviation; else a dash."""
    if cell.mean is None:
        return DASH
    spread = "" if cell.std is None else f" ± {cell.std:{column.form.lstrip('+')}}"
    return f"{cell.mean:{column.form}}{spread}"


def show(tables: Sequence[Table], console: Console) -> None:
    """Print tables with their footnotes."""
    for table in tables:
        console.print(_rich(table))
        for note in table.footnotes:
            text = f"{note.text}: {note.command}" if note.command else note.text
            console.print(text, markup=False, highlight=False, soft_wrap=True)
        console.print()


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=Text(table.title), title_justify="left")
    shown.add_column(Text(table.head), overflow="fold")
    for column in table.columns:
        shown.add_column(Text(column.name), justify="right", overflow="fold")
    for row in table.rows:
        cells = zip(row.cells, table.columns, strict=True)
        texts = (Text(cell_text(cell, column), style=_STYLES[cell.mark]) for cell, column in cells)
        shown.add_row(Text(row.name), *texts, style="" if row.ranked else "italic")
    return shown


def markdown(tables: Sequence[Table]) -> str:
    """Return tables as Markdown; the best figure is bold, the second underlined."""
    return "\n\n".join("\n".join(_markdown(table)) for table in tables) + "\n"


def _markdown(table: Table) -> Iterator[str]:
    heads = [table.head, *(column.name for column in table.columns)]
    yield f"**{escape_markdown(table.title)}**\n"
    yield _piped(map(escape_markdown, heads))
    yield _piped([":--", *["--:"] * len(table.columns)])
    for row in table.rows:
        cells = zip(row.cells, table.columns, strict=True)
        texts = [_MARKDOWN[cell.mark].format(cell_text(cell, column)) for cell, column in cells]
        yield _piped([escape_markdown(row.name), *texts])
    for number, note in enumerate(table.footnotes):
        command = f": {_code(note.command)}" if note.command else ""
        yield f"{'' if number else chr(10)}- {escape_markdown(note.text)}{command}"


def _piped(cells: Iterator[str] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """Return a code span; its fence is longer than any run of backticks inside."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line: every sign that could mean something is escaped."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))


def latex(tables: Sequence[Table]) -> str:
    """Return tables as LaTeX with the package booktabs; the best figure is bold, the second underlined."""
    return "\n\n".join("\n".join(_latex(table)) for table in tables) + "\n"


def _latex(table: Table) -> Iterator[str]:
    heads = [table.head, *(column.name for column in table.columns)]
    yield r"\begin{table}" + "\n" + r"\centering" + "\n" + rf"\caption{{{escape_latex(table.title)}}}"
    yield rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}" + "\n" + r"\toprule"
    yield " & ".join(map(escape_latex, heads)) + r" \\" + "\n" + r"\midrule"
    for row in table.rows:
        cells = zip(row.cells, table.columns, strict=True)
        texts = (_LATEX[cell.mark].format(_figure_latex(cell, column)) for cell, column in cells)
        yield " & ".join([escape_latex(row.name), *texts]) + r" \\"
    yield r"\bottomrule" + "\n" + r"\end{tabular}"
    for note in table.footnotes:
        command = rf": \texttt{{{escape_latex(note.command)}}}" if note.command else ""
        yield rf"\par\footnotesize {escape_latex(note.text)}{command}"
    yield r"\end{table}"


def _figure_latex(cell: Cell, column: Column) -> str:
    return escape_latex(cell_text(cell, column)).replace("-", "$-$")


def escape_latex(text: str) -> str:
    """Return a text that LaTeX sets as it is, on one line."""
    signs = (_LATEX_NAMES.get(sign, sign) for sign in " ".join(text.split()))
    # Two hyphens would be set as one dash.
    return re.sub("-(?=-)", "-{}", "".join(signs))


def as_csv(tables: Sequence[Table]) -> str:
    """Return tables as one CSV: a line for each row, with its table's title; figures in full.

    A column is followed by its standard deviation and number of seeds where any of its figures has several.
    """
    lines = [_record(table) for table in tables]
    heads = list(dict.fromkeys(head for table in lines for record in table for head in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(record for table in lines for record in table)
    return text.getvalue()


def _record(table: Table) -> list[dict[str, str]]:
    spread = [any(row.cells[i].std is not None for row in table.rows) for i in range(len(table.columns))]
    records = []
    for row in table.rows:
        record = {"table": table.title, table.head: row.name}
        for cell, column, several in zip(row.cells, table.columns, spread, strict=True):
            record[column.name] = _full(cell.mean)
            if several:
                record |= {f"{column.name} std": _full(cell.std), f"{column.name} seeds": str(cell.count)}
        records.append(record)
    return records


def _full(value: float | None) -> str:
    return "" if value is None else repr(value)


def document(tables: Sequence[Table]) -> dict[str, Any]:
    """Return tables as one JSON document: each row's cells by column name."""
    return {"tables": [_document(table) for table in tables]}


def _document(table: Table) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    return {
        "title": table.title,
        "head": table.head,
        "columns": [asdict(column) for column in table.columns],
        "rows": [
            {"name": row.name, "ranked": row.ranked, "cells": dict(zip(names, map(asdict, row.cells), strict=True))}
            for row in table.rows
        ],
        "footnotes": [{"text": note.text, "command": note.command} for note in table.footnotes],
    }


def as_json(tables: Sequence[Table]) -> str:
    """Return tables as the text of one JSON document."""
    return json_text(document(tables), indent=2) + "\n"


TEXTS: Mapping[str, Callable[[Sequence[Table]], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": as_csv,
    "json": as_json,
}
"""The formats that are text for files; `terminal` is the other one."""
