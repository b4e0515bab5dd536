"""Cumulative adapters beside the baseline: what summing up past adapters costs or brings (the paper's Table 1)."""

from __future__ import annotations

from peso_cli.reports import published
from peso_cli.reports.model import Cell, Column, Table, cell_of
from peso_cli.reports.selection import Group
from peso_cli.reports.standings import standings

NEEDS = "a method with a cumulative adapter, such as sumlora_all"

_ADAPTERS = ("sum_lora", "sd_lora", "inf_lora")
_GAIN = "ndcg@5"


def build(group: Group) -> list[Table]:
    """Return the table of a group: the cumulative methods, the baseline first."""
    cumulative = [v for v in group.variants if v.any.composition.get("adapter") in _ADAPTERS]
    if not cumulative:
        return []
    baseline = [v for v in group.variants if v.name == group.baseline and v not in cumulative]
    table = standings(group, "cumulative adapters", [*baseline, *cumulative], gains=[_GAIN])
    name = published.published_name(group.dataset)
    methods = {variant.name: variant.method for variant in group.variants}
    cells = [_published(methods.get(row.name, ""), name or "") for row in table.rows]
    known = group.baseline == "single" and any(cell.mean is not None for cell in cells)
    return [table.beside([Column(f"{_GAIN} gain % (paper)", "+.2f", "none")], [[c] for c in cells]) if known else table]


def _published(method: str, dataset: str) -> Cell:
    value = published.figure("cumulative", method, dataset, "natural")
    return cell_of([] if value is None else [value], "not published")
