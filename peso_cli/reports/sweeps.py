"""Tables of one method's variants along a setting."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from peso_cli.reports.model import Table
from peso_cli.reports.selection import Group, Variant
from peso_cli.reports.standings import standings


def sweeps(group: Group, keys: Sequence[str]) -> list[Table]:
    """Return a table for each method that has several variants along settings, in the order of their values.

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
            tables.append(standings(group, f"{method} by {' and '.join(keys)}", ordered))
    return tables


def _values(variant: Variant, keys: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(variant.any.settings[key]) for key in keys)
