"""Hybrids beside their parts alone and the union of both, stage by stage, with what was chosen on validation users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from peso_cli.evaluation.pairing import UserFigures, paired, per_user_ranks
from peso_cli.evaluation.significance import corrected_family, paired_bootstrap
from peso_cli.reports.averages import HIT, Take, averaged, figure_names, figure_of, unfilled
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.collected import Record
from peso_cli.reports.model import Column, Footnote, Row, Table, cell_of
from peso_cli.reports.selection import Group, Variant
from peso_cli.reports.tables.significance import COLUMNS, comparison_row

NEEDS = "method=hybrid, trained beyond stage 1"

_PARTS = {"generative": "generative", "two_tower": "two-tower"}

_ORACLE = "oracle union: a hit where either part has the target among its first K, at the better of their ranks"
_WEIGHTS = "weights are of the language model; a weight of 0 or 1 leaves one part alone, unless the fusion is rescored"


def build(group: Group) -> list[Table]:
    """Return a table for the figure at the largest K of Recall and of NDCG, the choices, and their significance.

    Raises:
        InputError: two runs scored different users.
        RunError: predictions can't be read.
    """
    hybrids = [variant for variant in group.variants if all(map(_fused, variant.records.values()))]
    if not hybrids:
        return []
    figures = last_of_each_kind(figure_names(group))
    tests = [_test_table(group, hybrids, figure) for figure in figures]
    return [*tests, _validation_table(group, hybrids), *(_differences(group, hybrids, figure) for figure in figures)]


def _fused(record: Record) -> bool:
    return isinstance(record.metrics.get("fusion"), Mapping)


def _test_table(group: Group, hybrids: Iterable[Variant], figure: str) -> Table:
    rows = []
    for variant in hybrids:
        takes = {_named(variant, part): figure_of(figure, part) for part in _PARTS}
        takes[variant.name] = figure_of(figure)
        rows += [Row(name, _cells(group, variant, take)) for name, take in takes.items()]
        oracle = _cells(group, variant, figure_of(figure, "oracle"))
        rows.append(Row(f"oracle union of {variant.name}", oracle, ranked=False))
    table = Table(f"{group.title}: {figure} of hybrids and their parts, test users", "", _columns(group), tuple(rows))
    return table.marked().noting(*_notes(group, hybrids), Footnote(_ORACLE), Footnote(HIT))


def _validation_table(group: Group, hybrids: Iterable[Variant]) -> Table:
    """Return the weights that were chosen, and the figures by which they were."""
    rows = []
    for variant in hybrids:
        rows.append(Row(f"{variant.name}: weight", _cells(group, variant, _weight), ranked=False))
        takes = {_named(variant, part): _valid(part) for part in _PARTS} | {variant.name: _valid("")}
        rows += [Row(name, _cells(group, variant, take)) for name, take in takes.items()]
    by = " and ".join(dict.fromkeys(str(v.any.metrics["fusion"]["by"]) for v in hybrids))
    table = Table(
        f"{group.title}: {by} of the validation users on whom fusions were chosen", "", _columns(group), tuple(rows)
    )
    return table.marked().noting(*map(Footnote, _kinds(group, hybrids)), Footnote(_WEIGHTS))


def _columns(group: Group) -> tuple[Column, ...]:
    return (*(Column(f"stage {stage}") for stage in group.stages), Column("mean"))


def _cells(group: Group, variant: Variant, take: Take) -> tuple[Any, ...]:
    """Return a cell for each stage, over all seeds that have it, and one for the mean over stages."""
    found = []
    for stage in group.stages:
        records = [variant.records[seed, stage] for seed in group.seeds if (seed, stage) in variant.records]
        found.append(cell_of([value for record in records if (value := take(record)) is not None], "not trained"))
    return (*found, averaged(group, variant, take))


def _named(variant: Variant, part: str) -> str:
    settings = variant.any.settings
    backbone, method = (settings.get(f"backbone.{part}.{key}", "?") for key in ("backbone", "method"))
    return f"{_PARTS[part]} ({backbone}, {method})"


def _weight(record: Record) -> float | None:
    return _number(record.metrics["fusion"], "fusion", "weight")


def _valid(part: str) -> Take:
    """Return what takes the figure by which a fusion was chosen; of a part, or of what was chosen."""

    def take(record: Record) -> float | None:
        fusion = record.metrics["fusion"]
        names = [part] if part else list(fusion["best"])
        values = [_number(fusion, "best", name, fusion["by"]) for name in names]
        return max((value for value in values if value is not None), default=None)

    return take


def _number(value: Any, *keys: str) -> float | None:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _kinds(group: Group, hybrids: Iterable[Variant]) -> Iterator[str]:
    for variant in hybrids:
        for seed in group.seeds:
            records = [(s, variant.records[seed, s]) for s in group.stages if (seed, s) in variant.records]
            said = [f"stage {s} {r.metrics['fusion']['fusion']['kind']} {_weight(r):g}" for s, r in records]
            yield f"{variant.name}, seed {seed}: {', '.join(said)}"


def _notes(group: Group, hybrids: Iterable[Variant]) -> Iterator[Footnote]:
    if group.mixed:
        yield Footnote(f"figures that can't be compared stand side by side: {group.mixed}")
    yield from unfilled(group, list(hybrids))


def _differences(group: Group, hybrids: Iterable[Variant], figure: str) -> Table:
    """Return how sure the differences from each part alone are; the smaller one is from the better part."""
    compared = {}
    for variant in hybrids:
        runs = {column: _ranks(group, variant, column) for column in ("rank", *(f"{part}_rank" for part in _PARTS))}
        for part in _PARTS:
            if runs["rank"]:
                found = paired(runs["rank"], runs[f"{part}_rank"])
                name = f"{variant.name} over {_named(variant, part)}"
                compared[name] = paired_bootstrap(found.figures[figure], strata=found.stages)
    holm = corrected_family({name: comparison.p_value for name, comparison in compared.items()})
    rows = tuple(comparison_row(name, comparison, holm[name]) for name, comparison in compared.items())
    title = f"{group.title}: {figure} of hybrids over their parts, test users, mean over {group.span}"
    return Table(title, "", COLUMNS, rows).noting(
        Footnote("paired bootstrap, 10,000 resamples of users within stages and, where there are several, of seeds"),
        Footnote("the smaller difference is from the better part; p (Holm): corrected for the rows of the table"),
        Footnote(HIT),
    )


def _ranks(group: Group, variant: Variant, column: str) -> dict[int, UserFigures]:
    """Return the figures of each user by a column of ranks, of the seeds that have all stages."""
    found = {}
    for seed in group.seeds:
        records = [variant.records.get((seed, stage)) for stage in group.stages]
        if all(record is not None and record.own for record in records):
            paths: list[Path] = [record.folder / "predictions.parquet" for record in records if record is not None]
            found[seed] = per_user_ranks(paths, column)
    return found
