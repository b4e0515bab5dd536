"""How runs learnt: the losses and the penalty by optimiser step, as their logs hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

from peso_cli.reports.collected import Record
from peso_cli.reports.look import Picture, key, plain, sheet, style, styled, tall, titled
from peso_cli.reports.selection import Group
from peso_cli.tracking.run_log import read_log

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

NEEDS = "a method that trained beyond stage 1"

Curves = Mapping[str, Mapping[int, float]]
"""By what was logged: its value by step."""

_CURVES = {"loss": "training loss", "validation_loss": "validation loss", "penalty": "penalty, strength included"}
_SLIGHT = 1e-3
"""A penalty (in nats, as the loss) below which its axis is linear."""

_MARKS = 8
"""Markers on a curve, about: they tell curves apart, and aren't the only steps that were logged."""


@styled()
def draw(group: Group) -> list[Picture]:
    """Return the picture of a group: a row for each curve, a column for each stage, a line for each method and seed.

    Raises:
        InputError: a stage's log is missing or damaged.
    """
    runs = {variant.name: {k: _curves(record) for k, record in variant.records.items()} for variant in group.variants}
    trained = {name: of for name, of in runs.items() if any(curves for curves in of.values())}
    logged = [name for name in _CURVES if any(curves.get(name) for of in trained.values() for curves in of.values())]
    if not logged:
        return []
    title = titled(group, "training")
    size = 3.5 + 2.6 * len(group.stages), tall(len(trained), 1 + 2.2 * len(logged))
    figure, panels = sheet(title, len(logged), len(group.stages), size, sharey="row", sharex="col")
    handles: dict[str, Artist] = {}
    for axes, (name, stage) in zip(panels, product(logged, group.stages), strict=True):
        for place, (variant, of) in enumerate(trained.items()):
            found = [curves[name] for (_, at), curves in of.items() if at == stage and curves.get(name)]
            handles.update((variant, _line(axes, curve, variant, place)) for curve in found)
        if name == "penalty":
            # Methods' penalties differ by orders of magnitude, and most begin at 0.
            axes.set_yscale("symlog", linthresh=_SLIGHT)
            plain(axes.yaxis)
    _name(panels, logged, group)
    key(figure, [handles[variant] for variant in trained])
    notes = [f"not drawn, for nothing was trained: {variant}" for variant in runs if variant not in trained]
    return [Picture(title, figure, tuple(notes))]


def _curves(record: Record) -> Curves:
    """Return what a stage's log holds of each curve."""
    curves: dict[str, dict[int, float]] = {}
    for line in read_log(record.folder / "log.jsonl"):
        match line:
            case {"event": "train", "step": int(step), **values}:
                for name in _CURVES.keys() & values.keys():
                    curves.setdefault(name, {})[step] = float(values[name])
    return curves


def _line(axes: Axes, curve: Mapping[int, float], label: str, place: int) -> Artist:
    every = max(1, len(curve) // _MARKS)
    # Shorter curves lie above longer ones, which would hide them.
    look = {**style(place), "linewidth": 0.8, "markevery": every, "zorder": 2 + 1 / len(curve)}
    (line,) = axes.plot([*curve], [*curve.values()], label=label, **look)
    return line


def _name(panels: Sequence[Axes], logged: Sequence[str], group: Group) -> None:
    """Name the rows by what they show, the columns by their stage."""
    across = len(group.stages)
    for axes, stage in zip(panels[:across], group.stages, strict=True):
        axes.set_title(f"stage {stage}", fontsize="medium")
    for axes, name in zip(panels[::across], logged, strict=True):
        axes.set_ylabel(_CURVES[name])
    for axes in panels[-across:]:
        axes.set_xlabel("optimiser step")
