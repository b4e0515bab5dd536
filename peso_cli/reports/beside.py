"""What stands beside our figures: the gain over a baseline, the published figures, and how far the orders agree."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from peso_cli.reports import published
from peso_cli.reports.model import Cell, Column, Footnote, Row, Table, cell_of
from peso_cli.reports.selection import Group, Variant

_FEWEST = 3
"""Methods that two orders must share for a rank correlation to say anything."""


def with_gains(table: Table, group: Group, names: Sequence[str], wanted: Sequence[str]) -> Table:
    """Return the table with the relative gain of each row over the baseline's, in percent, for some of its columns.

    Args:
        table: whose rows are variants; its first columns are those of `names`.
        group: names the baseline.
        names: the figures of the columns.
        wanted: those of them to take gains of.
    """
    if not group.baseline:
        return table
    rows = [row for row in table.rows if row.name == group.baseline]
    if not rows:
        return table.noting(_no_gains(group))
    columns = [Column(f"{name} gain %", "+.2f", "none") for name in wanted]
    cells = [[_gain(row, rows[0], names.index(name)) for name in wanted] for row in table.rows]
    return table.beside(columns, cells).noting(Footnote(f"gain: relative to {group.baseline}"))


def _no_gains(group: Group) -> Footnote:
    several = [f"--baseline {shlex.quote(v.name)}" for v in group.variants if v.method == group.baseline]
    why = f"has several rows; choose one: {' or '.join(several)}" if len(several) > 1 else "isn't among the rows"
    return Footnote(f"no gains: the baseline {group.baseline} {why}")


def _gain(row: Row, baseline: Row, column: int) -> Cell:
    ours, theirs = row.cells[column].mean, baseline.cells[column].mean
    if ours is None or not theirs:
        return Cell(missing="one of the two figures is missing, or the baseline's is 0")
    return cell_of([100 * (ours - theirs) / theirs])


def with_published(table: Table, group: Group, source: str, names: Sequence[str]) -> Table:
    """Return the table with the published figures, where the paper has the dataset, and the agreement of the orders.

    Args:
        table: whose rows are variants; its first columns are those of `names`.
        group: what it is of.
        source: the published table.
        names: the figures of the columns.
    """
    name = published.published_name(group.dataset)
    methods = {variant.name: variant.method for variant in group.variants}
    agreed = table.noting(
        *_agreements(table, group.variants, source, names, [name] if name else published.published_datasets())
    )
    if name is None:
        return agreed
    cells = [[_published(source, methods.get(row.name, row.name), name, n) for n in names] for row in table.rows]
    shown = [position for position in range(len(names)) if any(row[position].mean is not None for row in cells)]
    columns = [Column(f"{names[position]} (paper)", ".4f", "none") for position in shown]
    return agreed.beside(columns, [[row[position] for position in shown] for row in cells])


def _published(source: str, method: str, dataset: str, name: str) -> Cell:
    value = published.figure(source, method, dataset, name)
    return cell_of([] if value is None else [value], "not published")


def _agreements(
    table: Table, variants: Sequence[Variant], source: str, names: Sequence[str], datasets: Sequence[str]
) -> list[Footnote]:
    """Tell the rank agreement with the published figures at the largest K of each kind that both have."""
    counts = Counter(variant.method for variant in variants)
    once = {variant.name: variant.method for variant in variants if counts[variant.method] == 1}
    notes = []
    known = [name for name in names if any(published.figure(source, "single", d, name) for d in datasets)]
    for name in last_of_each_kind(known):
        ours = {once[r.name]: r.cells[names.index(name)].mean for r in table.rows if r.name in once}
        parts = [part for dataset in datasets if (part := _agreement(ours, source, dataset, name))]
        if parts:
            notes.append(Footnote(f"rank agreement with the paper (Spearman), {name}: {', '.join(parts)}"))
    return notes


def _agreement(ours: Mapping[str, float | None], source: str, dataset: str, name: str) -> str:
    pairs = [
        (value, theirs)
        for method, value in ours.items()
        if value is not None and (theirs := published.figure(source, method, dataset, name)) is not None
    ]
    value = spearman([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return "" if value is None else f"{dataset} {value:+.2f} over {len(pairs)} methods"


def spearman(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, equal values sharing a rank; None for few or constant values."""
    if len(ours) < _FEWEST or len(set(ours)) == 1 or len(set(theirs)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(ours, theirs).statistic)


def last_of_each_kind(names: Sequence[str]) -> list[str]:
    """Return the figure at the largest K of Recall and of NDCG."""
    return list({name.partition("@")[0]: name for name in names}.values())
