"""How methods fare from stage to stage, between popularity and the best attainable figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from peso_cli.reports.averages import averaged, figure_names, figure_of, reference_rows
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.look import Picture, curve, key, reference_style, sheet, style, styled, tall, ticks, titled
from peso_cli.reports.model import Cell
from peso_cli.reports.selection import Group, Variant

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

NEEDS = "any method trained beyond stage 1"


@styled()
def draw(group: Group) -> list[Picture]:
    """Return the picture of a group: a panel for Recall and one for NDCG, each at the largest K."""
    names = last_of_each_kind(figure_names(group))
    title = titled(group, "test users of each stage")
    figure, panels = sheet(title, 1, len(names), (11, tall(len(group.variants) + 3, 4)))
    handles = [_panel(axes, group, name) for axes, name in zip(panels, names, strict=True)]
    key(figure, handles[0], group.seeds)
    return [Picture(title, figure)]


def _panel(axes: Axes, group: Group, name: str) -> list[Artist]:
    lines = [
        curve(axes, group.stages, _cells(group, variant, name), label=variant.name, **style(place))
        for place, variant in enumerate(group.variants)
    ]
    for place, (label, cells) in enumerate(_references(group, name).items()):
        lines.append(curve(axes, group.stages, cells, label=label, **reference_style(place)))
    axes.set_xticks(ticks(group.stages))
    axes.set_xlabel("stage")
    axes.set_ylabel(name)
    axes.set_ylim(bottom=0)
    return lines


def _each_stage(group: Group) -> Sequence[Group]:
    return [replace(group, stages=(stage,)) for stage in group.stages]


def _cells(group: Group, variant: Variant, name: str) -> list[Cell]:
    return [averaged(alone, variant, figure_of(name)) for alone in _each_stage(group)]


def _references(group: Group, name: str) -> dict[str, list[Cell]]:
    """Return a cell for each stage by the reference's name; where a stage lacks the reference, an empty one."""
    found = [{row.name: row.cells[0] for row in reference_rows(alone, [name])} for alone in _each_stage(group)]
    labels = dict.fromkeys(label for rows in found for label in rows)
    return {label: [rows.get(label, Cell()) for rows in found] for label in labels}
