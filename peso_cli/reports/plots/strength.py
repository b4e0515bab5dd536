"""How the strength of a regularizer matters, beside the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from peso_cli.reports.averages import averaged, figure_names, figure_of, over
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.look import GREY, Picture, curve, key, logarithmic, plain, sheet, style, styled, tall, titled
from peso_cli.reports.selection import Group, Variant, differing, shown_value
from peso_cli.reports.tables import strength

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

NEEDS = strength.NEEDS

_KEY = "regularizer.strength"


@styled()
def draw(group: Group) -> list[Picture]:
    """Return the picture of the methods of a group that were trained with several strengths."""
    swept = {row.name for table in strength.build(group) for row in table.rows}
    lines = _lines([variant for variant in group.variants if variant.name in swept])
    if not lines:
        return []
    names = last_of_each_kind(figure_names(group))
    title = titled(group, f"strength of the regularizer, {over(group)}")
    figure, panels = sheet(title, 1, len(names), (11, tall(len(lines) + 3, 4)))
    handles = [_panel(axes, group, lines, name) for axes, name in zip(panels, names, strict=True)]
    key(figure, handles[0], group.seeds)
    return [Picture(title, figure)]


def _lines(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """Return variants by the line they lie on, in order of strength: those that differ in nothing else share one."""
    lines: dict[str, list[Variant]] = {}
    for method, members in groupby(variants, key=lambda variant: variant.method):
        found = sorted(members, key=_strength)
        keys = [key for key in differing([variant.any.settings for variant in found]) if key != _KEY]
        for variant in found:
            told = ", ".join(f"{key}={shown_value(variant.any.settings[key])}" for key in keys)
            lines.setdefault(f"{method} ({told})" if told else method, []).append(variant)
    return lines


def _strength(variant: Variant) -> float:
    return float(variant.any.settings[_KEY])


def _panel(axes: Axes, group: Group, lines: Mapping[str, Sequence[Variant]], name: str) -> list[Artist]:
    handles = []
    for place, (label, variants) in enumerate(lines.items()):
        cells = [averaged(group, variant, figure_of(name)) for variant in variants]
        handles.append(curve(axes, [_strength(v) for v in variants], cells, label=label, **style(place)))
    handles += [_baseline(axes, group, v, name) for v in group.variants if v.name == group.baseline]
    logarithmic(axes, [_strength(variant) for variants in lines.values() for variant in variants])
    plain(axes.xaxis)
    axes.set_xlabel(_KEY)
    axes.set_ylabel(name)
    return handles


def _baseline(axes: Axes, group: Group, baseline: Variant, name: str) -> Artist:
    """Draw a level line, and a band of ± the deviation over seeds."""
    cell = averaged(group, baseline, figure_of(name))
    level = float("nan") if cell.mean is None else cell.mean
    if cell.mean is not None and cell.std is not None:
        axes.axhspan(level - cell.std, level + cell.std, color=GREY, alpha=0.15, linewidth=0)
    return axes.axhline(level, color=GREY, linestyle=(0, (7, 2)), linewidth=1.8, label=baseline.name)
