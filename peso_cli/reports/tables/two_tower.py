"""Two-tower models with their continual strategies, beside language models on the same users (the paper's appendix)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from peso_cli.reports import published
from peso_cli.reports.beside import spearman
from peso_cli.reports.joined import by_dataset, joined
from peso_cli.reports.model import Cell, Column, Footnote, Table, cell_of
from peso_cli.reports.selection import Group
from peso_cli.reports.standings import standings
from peso_cli.reports.tables.significance import differences

NEEDS = "a method whose name begins with two_tower_, trained beyond stage 1"

_TOWERS = "two_tower_"
_BASELINE = "two_tower_finetune"
_NDCG = "ndcg"
"""What the paper's column is called; it doesn't say at which K."""

_RANKINGS = (
    "two-tower models rank all items, without those that a user had; language models find semantic IDs by beam search, "
    "and their hits are taken apart by item"
)


def regrouped(groups: Iterable[Group]) -> list[Group]:
    """Return a group for each dataset: two-tower methods of all backbones, and the paper's of language models."""
    made = (_joined(members) for members in by_dataset(groups))
    return [group for group in made if any(variant.method.startswith(_TOWERS) for variant in group.variants)]


def build(group: Group) -> list[Table]:
    """Return the figures of items, with the paper's NDCG, and how sure the differences from the baseline are.

    Raises:
        InputError: two runs scored different users.
        RunError: predictions can't be read.
    """
    if not any(variant.method.startswith(_TOWERS) for variant in group.variants):
        return []
    table = standings(group, "two-tower models", item=True)
    table = table.noting(*_agreements(table, group), Footnote(_RANKINGS))
    return [_beside_published(table, group), *differences(group, item=True)]


def _joined(groups: Sequence[Group]) -> Group:
    found = [(variant, group.backbone) for group in groups for variant in group.variants if _belongs(variant.method)]
    backbones = list(dict.fromkeys(backbone for _, backbone in found))
    places = {method: place for place, method in enumerate(published.published_methods("two_tower"))}
    # Methods that the paper doesn't have stand behind its two-tower ones, before the language models.
    behind = places["two_tower_pisa"] + 0.5
    found.sort(key=lambda pair: (places.get(pair[0].method, behind), backbones.index(pair[1])))
    group = joined(groups, found, [_BASELINE])
    return replace(group, absent=tuple(method for method in group.absent if method.startswith(_TOWERS)))


def _belongs(method: str) -> bool:
    return method.startswith(_TOWERS) or method in published.published_methods("two_tower")


def _beside_published(table: Table, group: Group) -> Table:
    dataset = published.published_name(group.dataset)
    if dataset is None:
        return table
    methods = {variant.name: variant.method for variant in group.variants}
    return table.beside(
        [Column(f"{_NDCG} (paper)", ".4f", "none")],
        [[_published(methods.get(row.name, row.name), dataset)] for row in table.rows],
    )


def _published(method: str, dataset: str) -> Cell:
    value = published.figure("two_tower", method, dataset, _NDCG)
    return cell_of([] if value is None else [value], "not published")


def _agreements(table: Table, group: Group) -> list[Footnote]:
    """Tell how far the order of methods, where each has one row, agrees with the published one."""
    methods = Counter(variant.method for variant in group.variants)
    once = {variant.name: variant.method for variant in group.variants if methods[variant.method] == 1}
    names = [column.name for column in table.columns if re.fullmatch(rf"{_NDCG}@\d+", column.name)]
    if not names:
        return []
    place = [column.name for column in table.columns].index(names[-1])
    ours = {once[row.name]: row.cells[place].mean for row in table.rows if row.name in once}
    name = published.published_name(group.dataset)
    parts = []
    for dataset in [name] if name else published.published_datasets():
        theirs = {method: published.figure("two_tower", method, dataset, _NDCG) for method in ours}
        pairs = [(mine, value) for method, value in theirs.items() if value and (mine := ours[method]) is not None]
        if (value := spearman([pair[0] for pair in pairs], [pair[1] for pair in pairs])) is not None:
            parts.append(f"{dataset} {value:+.2f} over {len(pairs)} methods")
    return [Footnote(f"rank agreement with the paper (Spearman), {names[-1]}: {', '.join(parts)}")] if parts else []
