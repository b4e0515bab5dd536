"""What must agree for figures to stand side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peso_cli.reports.collected import Record, protocol_key


def first_difference(records: Sequence[Record], protocols: bool = True) -> str:
    """Tell the first two records whose figures must not stand side by side, and why; empty where all may.

    Args:
        records: what is to be compared.
        protocols: whether protocols and prompts must agree, too, and not the data alone.
    """
    first: dict[int, Record] = {}
    for record in records:
        pairs = [(records[0], _conditions)] if protocols else []
        if record.data is not None:
            pairs.insert(0, (first.setdefault(record.place.stage, record), _data))
        for other, conditions in pairs:
            if difference := _difference(other, record, conditions):
                return difference
    return ""


def _difference(one: Record, other: Record, conditions: Callable[[Record], Mapping[str, Any]]) -> str:
    mine, theirs = conditions(one), conditions(other)
    for key in dict.fromkeys([*mine, *theirs]):
        if mine.get(key) != theirs.get(key):
            values = f"{_short(mine.get(key))} and {_short(theirs.get(key))}"
            return f"{one.folder} and {other.folder} differ in {key} ({values})"
    return ""


def _data(record: Record) -> dict[str, Any]:
    """Return what records of the same stage must agree on."""
    return {"the data": record.data, "items and semantic IDs": record.catalog}


def _conditions(record: Record) -> dict[str, Any]:
    """Return what all records must agree on."""
    return {protocol_key(name): value for name, value in record.protocol.items()} | record.prompt


def _short(value: Any) -> str:
    return value[:8] if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else repr(value)
