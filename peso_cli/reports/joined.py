"""Groups of one dataset put together, so that methods of several backbones stand side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from peso_cli.reports.comparable import first_difference
from peso_cli.reports.selection import Group, Variant


def by_dataset(groups: Iterable[Group]) -> list[list[Group]]:
    """Return the groups of each dataset."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.dataset, []).append(group)
    return list(found.values())


def joined(groups: Sequence[Group], found: Sequence[tuple[Variant, str]], otherwise: Sequence[str] = ()) -> Group:
    """Return one group of the groups of a dataset; rows are named by their backbones where there are several.

    Protocols may differ between backbones, so that the data alone tell whether runs can be compared.

    Args:
        groups: those of one dataset.
        found: the variants that stay, in their order, each with its backbone.
        otherwise: methods of which one is the baseline where none of the rows is the one that was asked for.
    """
    backbones = list(dict.fromkeys(backbone for _, backbone in found))
    named = [replace(v, name=f"{v.name}, {b}") if len(backbones) > 1 else v for v, b in found]
    records = [record for variant in named for record in variant.records.values()]
    present = {variant.method for variant in named}
    return replace(
        groups[0],
        backbone=", ".join(backbones),
        variants=tuple(named),
        absent=tuple(dict.fromkeys(method for g in groups for method in g.absent if method not in present)),
        stages=tuple(sorted({record.place.stage for record in records})),
        seeds=tuple(sorted({record.place.seed for record in records})),
        baseline=_baseline((groups[0].baseline, *otherwise), named),
        mixed=first_difference(records, protocols=False) or next((g.mixed for g in groups if g.mixed), ""),
        notes=tuple(dict.fromkeys(note for group in groups for note in group.notes)),
    )


def _baseline(names: Sequence[str], variants: Sequence[Variant]) -> str:
    """Return the first row that is meant by a name or a method; the first name, where there is no such row."""
    for wanted in filter(None, names):
        rows = [variant.name for variant in variants if wanted in (variant.name, variant.method)]
        if rows:
            return rows[0]
    return names[0]
