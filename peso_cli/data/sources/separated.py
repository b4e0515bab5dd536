"""Files of lines, and of lines whose fields a character separates."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.table import ROW, Table
from peso_cli.errors import InputError

_NEVER = "\x01"
"""A character that text files don't hold."""


def scan_lines(path: Path) -> pl.LazyFrame:
    """Return the lines of a file in the column `line`, null where one is empty, and their numbers in ROW."""
    return _scan(path, _NEVER, None, 0, {"line": pl.String})


def scan_separated(
    file: SourceFile, separator: str, quote: str | None = None, names: tuple[str, ...] | None = None
) -> Table:
    """Return the rows of a file with one record a line; a row with more fields than columns is all nulls.

    Args:
        file: where it lies.
        separator: the character between two fields.
        quote: the character around fields that hold separators; None where there is none.
        names: what the columns are called; None where the file's first line says so.

    Raises:
        InputError: the first line can't be read, or calls two columns the same.
    """
    above = 0
    if names is None:
        names, above = _header(file, separator, quote)
    columns = {name: f"column {number}" for number, name in enumerate(names)}
    schema = {**dict.fromkeys(columns.values(), pl.String), "beyond": pl.String}
    rows = _scan(file.path, separator, quote, above, schema)
    fits = pl.col("beyond").is_null()
    # Empty lines stand between records and at the end of many files.
    filled = rows.filter(~pl.all_horizontal(pl.col(*schema).is_null()))
    whole = filled.select(ROW, *(pl.when(fits).then(pl.col(column)).alias(column) for column in columns.values()))
    return Table(whole, columns, file.shown, above + 1)


def _scan(
    path: Path, separator: str, quote: str | None, above: int, schema: Mapping[str, type[pl.DataType]]
) -> pl.LazyFrame:
    return pl.scan_csv(
        path,
        has_header=False,
        separator=separator,
        quote_char=quote,
        skip_rows=above,
        schema=schema,
        encoding="utf8-lossy",
        truncate_ragged_lines=True,
        missing_columns="insert",
        extra_columns="ignore",
        row_index_name=ROW,
        glob=False,
    )


def _header(file: SourceFile, separator: str, quote: str | None) -> tuple[tuple[str, ...], int]:
    """Return the names of the columns, and how many lines there are up to them."""
    try:
        with file.path.open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
            reader = csv.reader(lines, delimiter=separator, quotechar=quote)
            above, names = next(((n, tuple(row)) for n, row in enumerate(reader, start=1) if row), (0, ()))
    except csv.Error as error:
        raise InputError(f"{file.shown}:1: the names of the columns can't be read ({error})") from None
    if not names:
        raise InputError(f"{file.shown}: the file is empty; its first line should name the columns")
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{file.shown}:{above}: two columns are called {double!r}; rename one")
    return names, above
