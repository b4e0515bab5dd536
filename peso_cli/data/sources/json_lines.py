"""Files with one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice
from typing import Any

import polars as pl

from peso_cli.data.sources.files import SourceFile
from peso_cli.data.sources.separated import scan_lines
from peso_cli.data.sources.table import EXACT, ROW, Table
from peso_cli.errors import InputError

_LOOK = 1000
"""Lines at the head of a file that show which keys there are."""

_FEW = 256
"""Lines that are read one after another where one of them is odd."""

_LONGEST = 1 << 24
"""Characters that are read at most in search of the end of a line."""


def scan_json_lines(file: SourceFile, wanted: Collection[str | None], texts: Collection[str | None] = ()) -> Table:
    """Return some members of a file's objects; a line that can't be read is a row of nulls.

    Args:
        file: where it lies.
        wanted: the keys of single values that are needed, as far as the file has them.
        texts: the keys of those values that may also be lists.

    Raises:
        InputError: none of the first lines is an object.
    """
    head = list(_objects(file))
    if not head:
        raise InputError(f"{file.shown}: none of its first lines is a JSON object; one is needed on each line")
    keys = dict.fromkeys(key for entry in head for key in entry)
    lists = {key for entry in head for key in texts if isinstance(entry.get(key or ""), list)}
    fields = {key: pl.List(pl.String()) if key in lists else pl.String() for key in keys if key in (*wanted, *texts)}
    if not fields:  # only to be told which columns there are
        fields = dict.fromkeys(list(keys)[:1], pl.String())
    kind = pl.Struct(fields)
    lines = scan_lines(file.path).filter(pl.col("line").str.strip_chars() != "")
    read = pl.col("line").map_batches(partial(_read, kind=kind), return_dtype=kind, is_elementwise=True)
    return Table(lines.select(ROW, read.alias("object")).unnest("object"), {k: k for k in keys}, file.shown, 1)


def _objects(file: SourceFile) -> Iterator[dict[str, Any]]:
    """Yield the objects among the first lines of a file."""
    with file.path.open(encoding="utf-8", errors="replace", newline="\n") as handle:
        for line in islice(iter(partial(handle.readline, _LONGEST), ""), _LOOK):
            if entry := _parsed(line):
                yield entry


def _parsed(line: str) -> dict[str, Any]:
    """Return the object on a line; an empty one where there is none."""
    try:
        entry = json.loads(line, object_pairs_hook=_first, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _first(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of the members with one key the first counts, as it does in polars."""
    return dict(members) | dict(reversed(members))


def _refuse(constant: str) -> None:
    """Refuse NaN and the infinities, which Python knows and JSON doesn't."""
    raise ValueError(constant)


def _read(lines: pl.Series, kind: pl.Struct) -> pl.Series:
    """Read lines at once; where some of them can't be read so, read the halves, and at last one line after another."""
    try:
        read = lines.str.json_decode(kind)
    except pl.exceptions.PolarsError:
        read = None
    # A line with two objects gives two rows.
    if read is not None and len(read) == len(lines):
        return read
    if len(lines) <= _FEW:
        return pl.Series(lines.name, [_odd(line, kind) for line in lines], kind)
    half = len(lines) // 2
    return pl.concat([_read(lines[:half], kind), _read(lines[half:], kind)])


def _odd(line: str, kind: pl.Struct) -> dict[str, list[str] | str | None]:
    """Read a line that is broken, or whose values are of other types than those of its fellows."""
    entry = _parsed(line)
    values: dict[str, list[str] | str | None] = {}
    for field in kind.fields:
        value = entry.get(field.name)
        values[field.name] = _words(value) if isinstance(field.dtype, pl.List) else _word(value)
    return values


def _words(value: Any) -> list[str]:
    """Return the texts in a value and in the lists inside it."""
    if isinstance(value, list):
        return [word for inner in value for word in _words(inner)]
    word = _word(value)
    return [] if word is None else [word]


def _word(value: Any) -> str | None:
    """Return a single value as text; None where it isn't one."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case float() if value.is_integer() and abs(value) <= EXACT:
            return str(int(value))
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            return None
