"""Regularizers on one evolving adapter, the rest being equal, and their order beside the paper's (Figure 2)."""

from __future__ import annotations

from peso_cli.reports import published
from peso_cli.reports.beside import last_of_each_kind, spearman
from peso_cli.reports.model import Footnote, Table
from peso_cli.reports.selection import Group, Variant
from peso_cli.reports.standings import standings

NEEDS = "a method with an evolving adapter that trains on the current stage alone, such as peso or single"


def build(group: Group) -> list[Table]:
    """Return the table of a group: methods that differ in their regularizer."""
    chosen = [variant for variant in group.variants if _differs_in_regularizer(variant)]
    if not chosen:
        return []
    table = standings(group, "regularizers", chosen)
    return [table.noting(*_agreement(table, chosen))]


def _differs_in_regularizer(variant: Variant) -> bool:
    parts = variant.any.composition
    return parts.get("adapter") == "evolving" and parts.get("memory") == "current"


def _agreement(table: Table, variants: list[Variant]) -> list[Footnote]:
    """Tell how far the order agrees with the published one, in which some share a place."""
    places = published.regularizer_places()
    names = [column.name for column in table.columns if column.name.partition("@")[2].isdecimal()]
    cells = {row.name: row.cells for row in table.rows}
    notes = []
    for name in last_of_each_kind(names):
        pairs = [
            (mean, -places[regularizer])
            for variant in variants
            if (regularizer := variant.any.composition["regularizer"]) in places
            and (mean := cells[variant.name][names.index(name)].mean) is not None
        ]
        value = spearman([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        if value is not None:
            text = f"rank agreement with the paper's Figure 2 (Spearman), {name}: {value:+.2f} over {len(pairs)}"
            notes.append(Footnote(text))
    return notes
