"""Rows of one file as they stand there, and what becomes of them: interactions or items with the fixed columns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns
from peso_cli.data.sources.frames import EVENT_SCHEMA, ITEM_SCHEMA
from peso_cli.errors import InputError, nearest

ROW = "row number"
"""Column with the number of a row, from 0; worked out only where it is asked for."""

_LISTS = {"categories": ", "}
"""What joins the words of a list, where that isn't a space."""

EXACT = 2.0**53
"""Up to here a float holds every whole number."""


@dataclass(frozen=True)
class Table:
    """Rows of one file.

    Attributes:
        rows: the columns in `columns`, and ROW.
        columns: the column in `rows` of each name that the file gives.
        shown: what messages call the file.
        first: the line on which row 0 stands, from 1.
    """

    rows: pl.LazyFrame
    columns: dict[str, str]
    shown: str
    first: int

    def text(self, name: str | None, joined: str | None = None) -> pl.Expr:
        """Return a column as text; lists are joined, or null where nothing joins them."""
        if name is None:
            return pl.lit(None, pl.String)
        column = self.columns[name]
        text = as_text(pl.col(column), self.rows.collect_schema()[column], joined)
        return pl.when(text.str.strip_chars() != "").then(text)

    def require(self, names: dict[str, str | None], setting: str | None) -> None:
        """Check that all columns are there.

        Args:
            names: what the file should call our columns, by what we call them.
            setting: the setting that says so, where there is one.

        Raises:
            InputError: one isn't.
        """
        for ours, name in names.items():
            if name is not None and name not in self.columns:
                there = [" ".join(column.split()) for column in self.columns]
                mend = f"; set {setting}.{ours} to its name" if setting else ""
                listed = ", ".join(there)[:300]
                raise InputError(f"{self.shown}: no column {name!r}{nearest(name, there)}{mend}; it has {listed}")


def events_of(table: Table, columns: EventColumns, setting: str | None = None) -> pl.LazyFrame:
    """Return the interactions of a table, with EVENT_SCHEMA.

    Raises:
        InputError: a column is missing.
    """
    table.require(_names(columns), setting)
    rating = table.text(columns.rating).str.strip_chars().cast(pl.Float64, strict=False)
    place = pl.concat_str(pl.lit(f"{table.shown}:"), (pl.col(ROW).cast(pl.Int64) + table.first).cast(pl.String))
    found = table.rows.select(
        user=table.text(columns.user),
        item=table.text(columns.item),
        timestamp=table.text(columns.timestamp),
        rating=pl.when(rating.is_finite()).then(rating),
        place=place,
    )
    return found.select(*EVENT_SCHEMA)


def items_of(table: Table, columns: ItemColumns, setting: str | None = None) -> pl.LazyFrame:
    """Return the items of a table, with ITEM_SCHEMA; an item may come several times.

    Raises:
        InputError: a column is missing.
    """
    names = _names(columns)
    table.require(names, setting)
    texts = {ours: table.text(name, _LISTS.get(ours, " ")) for ours, name in names.items() if ours != "item"}
    return table.rows.select(table.text(columns.item).alias("item"), **texts).select(*ITEM_SCHEMA)


def known_of(table: Table, columns: ItemColumns) -> ItemColumns:
    """Return the columns without those texts that a file of a fixed layout happens to lack."""

    def there(name: str | None) -> str | None:
        return name if name in table.columns else None

    texts = (columns.title, columns.description, columns.brand, columns.categories)
    return ItemColumns(columns.item, *map(there, texts))


def _names(columns: EventColumns | ItemColumns) -> dict[str, str | None]:
    return {field.name: getattr(columns, field.name) for field in fields(columns)}


def as_text(column: pl.Expr, kind: pl.DataType, joined: str | None = None) -> pl.Expr:
    """Return a column of any type as text, as people would write it; null where the type has no such form."""
    match kind:
        case pl.String():
            return column
        case pl.Float32() | pl.Float64():
            whole = column.is_finite() & (column == column.round()) & (column.abs() <= EXACT)
            return pl.when(whole).then(column.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(_decimals(column))
        case pl.Datetime(time_zone=str()):
            return column.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        case pl.Datetime():
            return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")
        case pl.List(inner=inner) | pl.Array(inner=inner) if joined is not None:
            flat = column if isinstance(kind, pl.List) else column.arr.to_list()
            words = flat.list.eval(as_text(pl.element(), _plain(inner), joined))
            return words.list.join(joined, ignore_nulls=True)
        case _ if (
            kind.is_integer() or kind.is_decimal() or isinstance(kind, (pl.Boolean, pl.Categorical, pl.Enum, pl.Date))
        ):
            return column.cast(pl.String, strict=False)
        case _:
            return pl.lit(None, pl.String)


def _decimals(column: pl.Expr) -> pl.Expr:
    return pl.when(column.is_finite()).then(column.cast(pl.String))


def _plain(kind: object) -> pl.DataType:
    """Return a type that polars may give as a class or as an instance of it."""
    return kind() if isinstance(kind, type) else kind  # type: ignore[return-value]
