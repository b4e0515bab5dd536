"""A table as plain values: what it says, not how it looks."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Mark = Literal["", "best", "second"]


@dataclass(frozen=True)
class Cell:
    """A figure.

    Attributes:
        mean: over seeds; None where it is missing.
        std: the sample standard deviation over seeds, None for fewer than two.
        count: how many seeds.
        mark: whether it is the best or the second of its column.
        missing: why it is missing.
    """

    mean: float | None = None
    std: float | None = None
    count: int = 0
    mark: Mark = ""
    missing: str = ""


def cell_of(values: Sequence[float], missing: str = "") -> Cell:
    """Return the cell of one value a seed; `missing` says why there are none."""
    if not values:
        return Cell(missing=missing)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values), std, len(values))


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        name: its head.
        form: how a figure is written, as a format specification.
        better: whether the highest or the lowest figure is the best; `none` where no figure is better than another.
    """

    name: str
    form: str = ".4f"
    better: Literal["highest", "lowest", "none"] = "highest"


@dataclass(frozen=True)
class Row:
    """A row: its name, and a cell for each column. One that isn't `ranked` is a reference and never the best."""

    name: str
    cells: tuple[Cell, ...]
    ranked: bool = True


@dataclass(frozen=True)
class Gap:
    """Something missing, as the command that fills it; `str` is the command as it can be pasted.

    Attributes:
        verb: what the command does.
        words: its overrides.
        config_dir: the user's own config folder, where it is known.
        needs_folder: whether a choice is in such a folder and it isn't known.
    """

    verb: Literal["train", "evaluate"]
    words: tuple[str, ...]
    config_dir: Path | None = None
    needs_folder: bool = False

    def __str__(self) -> str:
        folder = "FOLDER" if self.needs_folder else self.config_dir
        option = ["--config-dir", str(folder)] if folder else []
        return shlex.join(["peso", self.verb, *self.words, *option])


@dataclass(frozen=True)
class Footnote:
    """A line under a table; with what fills it, where it tells of something missing."""

    text: str
    gap: Gap | None = None

    @property
    def command(self) -> str:
        """The command that fills what is missing; empty where nothing is."""
        return "" if self.gap is None else str(self.gap)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it is of.
        head: the head of the rows' names.
        columns, rows, footnotes: what it holds.
    """

    title: str
    head: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[Footnote, ...] = ()

    def beside(self, columns: Sequence[Column], cells: Sequence[Sequence[Cell]]) -> Table:
        """Return the table with more columns at its right; `cells` holds, for each row, a cell for each of them."""
        rows = (replace(r, cells=(*r.cells, *more)) for r, more in zip(self.rows, cells, strict=True))
        return replace(self, columns=(*self.columns, *columns), rows=tuple(rows))

    def noting(self, *footnotes: Footnote) -> Table:
        """Return the table with more footnotes."""
        return replace(self, footnotes=(*self.footnotes, *footnotes))

    def marked(self) -> Table:
        """Return the table with the best and the second figure of each column marked, those that are equal alike."""
        marks = [self._marks(position) for position in range(len(self.columns))]
        return replace(self, rows=tuple(_marked(row, marks) for row in self.rows))

    def _marks(self, position: int) -> dict[float, Mark]:
        """Return which figures of a column carry a mark; none does where there is nothing to compare."""
        column = self.columns[position]
        values = [row.cells[position].mean for row in self.rows if row.ranked]
        known = [value for value in values if value is not None]
        if column.better == "none" or len(known) < 2:
            return {}
        order = sorted(set(known), reverse=column.better == "highest")
        marks: tuple[Mark, ...] = ("best", "second")
        return dict(zip(order, marks, strict=False))


def _marked(row: Row, marks: Sequence[dict[float, Mark]]) -> Row:
    if not row.ranked:
        return row
    cells = zip(row.cells, marks, strict=True)
    marked = (replace(c, mark="" if c.mean is None else of.get(c.mean, "")) for c, of in cells)
    return replace(row, cells=tuple(marked))
