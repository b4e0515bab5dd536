"""The table that most others are: methods by Recall and NDCG, with what stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from peso_cli.reports.averages import HIT, ITEM_HIT, compared, figure_names, figure_of, reference_rows
from peso_cli.reports.beside import last_of_each_kind, with_gains, with_published
from peso_cli.reports.model import Column, Footnote, Table
from peso_cli.reports.selection import Group, Variant


def standings(
    group: Group,
    title: str = "test users",
    variants: Sequence[Variant] | None = None,
    item: bool = False,
    gains: Sequence[str] | None = None,
) -> Table:
    """Return variants by Recall and NDCG, beside popularity, the published figures and the gains over the baseline.

    More columns (such as those of significance tests) go at the right, by `Table.beside`.

    Args:
        group: what is compared.
        title: what is shown.
        variants: the rows; by default all of the group.
        item: whether a hit is the item itself; the paper counts semantic IDs, so its figures are left out then.
        gains: the figures to take gains of; by default the one at the largest K of each kind.
    """
    names = figure_names(group)
    takes = {Column(name): figure_of(name, "item" if item else "") for name in names}
    table = compared(group, title, takes, variants, absent=variants is None)
    table = replace(table, rows=(*table.rows, *reference_rows(group, names, item)))
    if not item:
        table = with_published(table, group, "main", names)
    wanted = last_of_each_kind(names) if gains is None else [name for name in gains if name in names]
    return with_gains(table, group, names, wanted).noting(Footnote(ITEM_HIT if item else HIT))
