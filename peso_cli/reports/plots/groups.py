"""Bars for the user groups: new in a stage, returning from the one before, dormant until now."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from peso_cli.reports.averages import over
from peso_cli.reports.look import COLOURS, HATCHES, Picture, key, sheet, styled, titled, whisker
from peso_cli.reports.model import Column, Table
from peso_cli.reports.selection import Group
from peso_cli.reports.tables import groups

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

NEEDS = groups.NEEDS

_THICK = 0.27
"""Height of a bar, where a row is 1 high."""


@styled()
def draw(group: Group) -> list[Picture]:
    """Return the picture of a group: a panel for each figure, a row for each method, a bar for each user group."""
    (table,) = groups.build(group)
    ours = [column for column in table.columns if not column.name.endswith(" (paper)")]
    by_figure = {name: list(found) for name, found in groupby(ours, key=lambda column: _parts(column)[1])}
    title = titled(group, f"by user group, {over(group)}")
    size = 11, 1.4 + 0.42 * len(table.rows)
    figure, panels = sheet(title, 1, len(by_figure), size, sharey=True)
    bars = [_panel(axes, table, name, columns) for axes, (name, columns) in zip(panels, by_figure.items(), strict=True)]
    panels[0].set_yticks(range(len(table.rows)), [row.name for row in table.rows])
    panels[0].set_ylim(len(table.rows) - 0.4, -0.6)
    key(figure, bars[0], group.seeds, "line")
    return [Picture(title, figure)]


def _parts(column: Column) -> tuple[str, str]:
    """Return the user group and the figure of a column."""
    users, _, figure = column.name.partition(".")
    return users, figure


def _panel(axes: Axes, table: Table, name: str, columns: Sequence[Column]) -> list[Artist]:
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(name)
    drawn: list[Artist] = []
    for place, column in enumerate(columns):
        cells = [row.cells[table.columns.index(column)] for row in table.rows]
        heights = [row + _THICK * (place - 1) for row in range(len(cells))]
        bars = axes.barh(heights, [cell.mean or 0.0 for cell in cells], _THICK, label=_parts(column)[0])
        for bar, height, cell in zip(bars, heights, cells, strict=True):
            bar.set(facecolor=COLOURS[place], hatch=HATCHES[place], edgecolor="white", label=_parts(column)[0])
            whisker(axes, cell, height, upright=False)
            if cell.mean is None:
                axes.text(0, height, " \N{EN DASH}", va="center", fontsize="x-small")
        drawn.append(bars[0])
    return drawn
