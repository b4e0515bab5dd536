"""Tables of one method's variants along a setting, and which of them validation chooses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from peso_cli.reports.choice import KINDS, choice_notes, contests, figure_name, validation_cell
from peso_cli.reports.model import Cell, Column, Table
from peso_cli.reports.selection import Group, Variant
from peso_cli.reports.standings import standings


def sweeps(group: Group, keys: Sequence[str]) -> list[Table]:
    """Return a table for each method that has several variants along settings, in the order of their values.

    Beside the figures of test users stand those of validation users. What is chosen rests on these alone.

    Args:
        group: what is compared.
        keys: dotted settings, numbers all; a method that lacks one has no table.
    """
    tables = []
    for method, members in groupby(group.variants, key=lambda variant: variant.method):
        found = [variant for variant in members if all(key in variant.any.settings for key in keys)]
        values = {variant.name: _values(variant, keys) for variant in found}
        if len(set(values.values())) > 1:
            ordered = sorted(found, key=lambda variant: values[variant.name])
            table = standings(group, f"{method} by {' and '.join(keys)}", ordered)
            notes = [note for rivals in contests(ordered, keys) for note in choice_notes(rivals)]
            tables.append(_with_validation(table, group, ordered).noting(*notes))
    return tables


def _values(variant: Variant, keys: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(variant.any.settings[key]) for key in keys)


def _with_validation(table: Table, group: Group, variants: Sequence[Variant]) -> Table:
    """Return the table with the figures of validation users at its right; rows that are no variant's have none."""
    columns = [Column(f"{figure_name(variants[0].any, kind)} (validation)") for kind in KINDS]
    cells = {v.name: [validation_cell(v, group.stages, kind) for kind in KINDS] for v in variants}
    none = [Cell(missing="not a method")] * len(KINDS)
    return table.beside(columns, [cells.get(row.name, none) for row in table.rows]).marked()
