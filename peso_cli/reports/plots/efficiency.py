"""What a figure costs: NDCG against parameters trained, bytes kept, seconds and memory taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peso_cli.reports.averages import averaged, figure_names, figure_of, over
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.look import Picture, key, logarithmic, plain, sheet, style, styled, tall, titled, whisker
from peso_cli.reports.model import Cell, Table
from peso_cli.reports.selection import Group
from peso_cli.reports.tables import efficiency

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

NEEDS = "any method that has all stages and whose costs were recorded"

Points = Mapping[str, tuple[float, Cell]]
"""By method: its cost and its figure."""

_FAR = 10
"""From how many times the lowest cost on the highest is so far away that the axis is logarithmic."""


@styled()
def draw(group: Group) -> list[Picture]:
    """Return the picture of a group: a panel for each cost, each point labelled with its method's place by figure."""
    name = last_of_each_kind(figure_names(group))[-1]
    figures = {variant.name: averaged(group, variant, figure_of(name)) for variant in group.variants}
    order = sorted((n for n, cell in figures.items() if cell.mean is not None), key=lambda n: -(figures[n].mean or 0.0))
    (table,) = efficiency.build(group)
    costs = ("trained parameters", f"bytes, stage {group.stages[-1]}", "training s", "peak bytes")
    points = {cost: _points(table, cost, {method: figures[method] for method in order}) for cost in costs}
    shown = {cost: found for cost, found in points.items() if found}
    if not shown:
        return []
    title = titled(group, f"{name} by cost, {over(group)}")
    figure, panels = sheet(title, 1, len(shown), (1 + 4 * len(shown), tall(len(order) + 2, 4)), sharey=True)
    for axes, cost in zip(panels, shown, strict=True):
        axes.set_xlabel(cost)
    panels[0].set_ylabel(name)
    drawn: dict[str, Artist] = {}
    for axes, found in zip(panels, shown.values(), strict=True):
        drawn.update(_panel(axes, found, order))
    for axes, found in zip(panels, shown.values(), strict=True):
        _label(axes, found, order)
    key(figure, [drawn[method] for method in order if method in drawn], group.seeds, "line")
    return [Picture(title, figure, _left_out(points, list(figures)))]


def _points(table: Table, cost: str, figures: Mapping[str, Cell]) -> Points:
    column = [column.name for column in table.columns].index(cost)
    means = {row.name: row.cells[column].mean for row in table.rows}
    return {method: (mean, cell) for method, cell in figures.items() if (mean := means[method]) is not None}


def _left_out(points: Mapping[str, Points], methods: Sequence[str]) -> tuple[str, ...]:
    lacking = {cost: [method for method in methods if method not in found] for cost, found in points.items()}
    return tuple(f"not drawn by {cost}, for want of a figure: {', '.join(of)}" for cost, of in lacking.items() if of)


def _panel(axes: Axes, points: Points, order: Sequence[str]) -> dict[str, Artist]:
    drawn: dict[str, Artist] = {}
    for method, (cost, cell) in points.items():
        place, height = order.index(method), cell.mean or 0.0
        look = {**style(place), "linestyle": "none", "markersize": 6}
        (drawn[method],) = axes.plot([cost], [height], label=f"{place + 1}  {method}", **look)
        whisker(axes, cell, cost, upright=True)
    _scale(axes, [cost for cost, _ in points.values()])
    return drawn


def _label(axes: Axes, points: Points, order: Sequence[str]) -> None:
    """Write each method's place beside its point, on the side that is away from the nearest other point."""
    # Where points will lie follows from the limits, which are otherwise set when the figure is saved.
    axes.autoscale_view()
    ends = {method: (cost, cell.mean or 0.0) for method, (cost, cell) in points.items()}
    seen = {method: tuple(axes.transData.transform(end)) for method, end in ends.items()}
    for method, end in ends.items():
        here, place = seen[method], order.index(method)
        others = [(math.dist(here, there), there[0], order.index(other)) for other, there in seen.items()]
        _, across, its = min((other for other in others if other[2] != place), default=(0.0, here[0], place))
        right = (across, its) <= (here[0], place)
        label: dict[str, Any] = {"ha": "left" if right else "right", "va": "center", "fontsize": "x-small"}
        axes.annotate(str(place + 1), end, (7 if right else -7, 0), textcoords="offset points", **label)


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    known = [cost for cost in costs if cost > 0]
    if known and max(known) >= _FAR * min(known):
        logarithmic(axes, costs)
    axes.margins(x=0.12)
    plain(axes.xaxis)
