"""What a method forgets and carries forward: a heat map of every stage's model on every stage's users."""

from __future__ import annotations

import math
from textwrap import fill
from typing import TYPE_CHECKING

from peso_cli.reports.averages import figure_names
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.look import Picture, sheet, styled, ticks, titled
from peso_cli.reports.model import Table
from peso_cli.reports.selection import Group
from peso_cli.reports.tables import forgetting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

NEEDS = forgetting.NEEDS

_ACROSS = 4
"""Panels beside each other, at most."""

_CELL = 0.55
"""Width of a cell that holds its figure, in inches."""

_WIDEST = 8.0
"""Largest width of a panel, in inches: with more stages, cells are smaller and hold no figure."""

_COLOURS = "cividis"
"""Evenly lighter from end to end, for all eyes and in print (Nunez, Anderton and Renslow, PLOS ONE 13(7), 2018)."""


@styled()
def draw(group: Group) -> list[Picture]:
    """Return the picture of a group: a panel for each method, all in the same colours."""
    _, *tables = forgetting.build(group)
    across = min(_ACROSS, len(tables))
    down = math.ceil(len(tables) / across)
    name = last_of_each_kind(figure_names(group))[-1]
    seeds = f", mean over seeds {', '.join(map(str, group.seeds))}" * (len(group.seeds) > 1)
    title = titled(group, f"{name} of each stage's model{seeds}")
    side = min(_WIDEST, max(1.6, _CELL * (len(group.stages) + 1)))
    figure, panels = sheet(title, down, across, (1.6 + (side + 0.5) * across, 0.8 + (side + 0.6) * down))
    values = [_values(table) for table in tables]
    known = [value for matrix in values for row in matrix for value in row if not math.isnan(value)]
    limits = min(known, default=0.0), max(known, default=1.0)
    for axes, variant, matrix in zip(panels, group.variants, values, strict=False):
        axes.set_title(fill(variant.name, int(12 * (side + 0.5))), fontsize="medium")
        image = _panel(axes, (1, *group.stages), matrix, limits)
        if side < _WIDEST:
            _write(axes, matrix, sum(limits) / 2)
    for axes in panels[len(tables) :]:
        axes.remove()
    figure.supxlabel("test users of stage", fontsize="medium")
    figure.supylabel("model after stage", fontsize="medium")
    figure.colorbar(image, ax=panels[: len(tables)], label=name, shrink=0.6, aspect=30)
    return [Picture(title, figure)]


def _values(table: Table) -> list[list[float]]:
    """Return the figures by model and users; NaN where one isn't known."""
    square = [row.cells[: len(table.rows)] for row in table.rows]
    return [[math.nan if cell.mean is None else cell.mean for cell in cells] for cells in square]


def _panel(axes: Axes, stages: tuple[int, ...], matrix: list[list[float]], limits: tuple[float, float]) -> AxesImage:
    image = axes.imshow(matrix, cmap=_COLOURS, vmin=limits[0], vmax=limits[1])
    axes.grid(visible=False)
    places = ticks(range(len(stages)))
    names = [str(stages[place]) for place in places]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    return image


def _write(axes: Axes, matrix: list[list[float]], middle: float) -> None:
    """Write each figure into its cell, legibly on what is darker or lighter than the `middle`."""
    for down, row in enumerate(matrix):
        for across, value in enumerate(row):
            text = "\N{EN DASH}" if math.isnan(value) else f"{value:.3f}"
            colour = "white" if value < middle else "black"
            number = axes.text(across, down, text, ha="center", va="center", color=colour, fontsize="x-small")
            # It lies inside its cell, so that the layout needn't measure it.
            number.set_in_layout(False)
