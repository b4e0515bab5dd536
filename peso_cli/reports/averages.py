"""Figures of variants, averaged over stages and then over seeds, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from peso_cli.reports.collected import Figures, Record
from peso_cli.reports.filling import training_gap
from peso_cli.reports.model import Cell, Column, Footnote, Row, Table, cell_of
from peso_cli.reports.results import figure_columns
from peso_cli.reports.selection import Group, Variant

Take = Callable[[Record], float | None]
"""Takes a figure from a record; None where there are no such users in its stage."""

NOT_TRAINED = "no seed has all stages"
NOT_RECORDED = "no stage has such a figure"
"""Why a figure is missing."""

HIT = "A hit is an equal semantic ID."
ITEM_HIT = "A hit is the item itself, in expectation over the order of the items that share a semantic ID."


def averaged(group: Group, variant: Variant, take: Take) -> Cell:
    """Return the mean over seeds of the mean over the group's stages; a seed that lacks a stage doesn't count."""
    complete = [seed for seed in group.seeds if all((seed, stage) in variant.records for stage in group.stages)]
    seeds = [_mean([take(variant.records[seed, stage]) for stage in group.stages]) for seed in complete]
    return cell_of([value for value in seeds if value is not None], NOT_RECORDED if complete else NOT_TRAINED)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def figure_of(name: str, kind: str = "") -> Take:
    """Return what takes a figure (`recall@5`) of a stage's own test users; `kind` as in `item` or `popularity.item`."""

    def take(record: Record) -> float | None:
        figures: Figures = record.figures() or {}
        for part in kind.split(".") if kind else ():
            figures = figures.get(part, {})
        return figures.get(name)

    return take


def figure_names(group: Group) -> tuple[str, ...]:
    """Return the figures that the group's tables show: Recall and NDCG at each K above 1 that any record has."""
    return figure_columns(*(r.figures() or {} for variant in group.variants for r in variant.records.values()))


def compared(
    group: Group,
    title: str,
    takes: Mapping[Column, Take],
    variants: Sequence[Variant] | None = None,
    absent: bool = True,
) -> Table:
    """Return a table of variants by figures, averaged over stages and seeds, with what is missing named below.

    Args:
        group: what is compared.
        title: what is shown; dataset, backbone and stages are added.
        takes: the columns, with what takes each one's figure from a record.
        variants: the rows; by default all of the group.
        absent: whether methods that were asked for and have nothing finished have an empty row.
    """
    chosen = group.variants if variants is None else variants
    rows = [Row(v.name, tuple(averaged(group, v, take) for take in takes.values())) for v in chosen]
    missing = group.absent if absent else ()
    rows += [Row(method, (Cell(missing=NOT_TRAINED),) * len(takes)) for method in missing]
    notes = [*_mixed(group), *_spread(group, rows), *unfilled(group, chosen), *_untrained(group, missing)]
    return Table(f"{group.title}: {title}, {over(group)}", "method", tuple(takes), tuple(rows), tuple(notes)).marked()


def over(group: Group) -> str:
    """Say what figures are averaged over."""
    return f"mean over {group.span}" if len(group.stages) > 1 else group.span


def reference_rows(group: Group, names: Sequence[str], item: bool = False) -> list[Row]:
    """Return rows that tell what figures mean: popularity's and, where known, the best attainable ones."""
    rows = []
    for name, kind in (("popularity", "popularity.item" if item else "popularity"), ("best attainable", "ceiling")):
        cells = [_reference(group, figure_of(figure, kind)) for figure in names]
        if any(cell.mean is not None for cell in cells) and not (item and kind == "ceiling"):
            rows.append(Row(name, tuple(cells), ranked=False))
    return rows


def _reference(group: Group, take: Take) -> Cell:
    """Average over stages a figure that is the same for every method; any record of a stage will do."""
    records = {stage: record for v in group.variants for (_, stage), record in v.records.items()}
    values = [take(records[stage]) for stage in group.stages]
    mean = None if None in values else _mean(values)
    return cell_of([] if mean is None else [mean], NOT_RECORDED)


def _mixed(group: Group) -> Iterator[Footnote]:
    if group.mixed:
        yield Footnote(f"figures that can't be compared stand side by side: {group.mixed}")


def _spread(group: Group, rows: Sequence[Row]) -> Iterator[Footnote]:
    if any(cell.std is not None for row in rows for cell in row.cells):
        yield Footnote("± is the sample standard deviation over seeds " + ", ".join(map(str, group.seeds)))


def unfilled(group: Group, variants: Sequence[Variant]) -> Iterator[Footnote]:
    """Yield what is missing of variants that have something, with the command that trains it."""
    for variant in variants:
        for seed in group.seeds:
            stages = [stage for stage in group.stages if (seed, stage) not in variant.records]
            if stages:
                named = f"stage{'s' * (len(stages) > 1)} {', '.join(map(str, stages))}"
                gap = training_gap(variant.any, seed, max(stages))
                yield Footnote(f"missing: {variant.name}, seed {seed}, {named}", gap)


def _untrained(group: Group, methods: Sequence[str]) -> Iterator[Footnote]:
    like = group.variants[0].any
    for method in methods:
        for seed in group.seeds:
            gap = training_gap(like, seed, max(group.stages), method)
            yield Footnote(f"missing: {method}, seed {seed}", gap)
