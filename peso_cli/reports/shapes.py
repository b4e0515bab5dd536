"""What the documents of an artifact look like; reports take nothing else, so that no reader of theirs has to doubt."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

_FIGURE = re.compile(r"(recall|ndcg)@[1-9][0-9]{0,5}")

_LARGEST = 1e300
"""Beyond this, numbers aren't measured and can't be shown."""

_DEEPEST = 20
"""Levels of settings in settings."""

Test = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def is_scalar(value: Any) -> bool:
    """Tell whether a value is a text, a finite number, a truth or nothing."""
    return value is None or isinstance(value, str | bool) or is_number(value)


def is_setting(value: Any) -> bool:
    """Tell whether a value can be that of a setting: a scalar, or a list of such; an empty mapping has none."""
    return is_scalar(value) or value == {} or (isinstance(value, list) and all(map(is_scalar, value)))


def is_mapping(value: Any, of: Test, key: str = "") -> bool:
    """Tell whether a value maps texts, that fit a pattern if there is one, to values of a kind."""
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(k, str) and (not key or re.fullmatch(key, k)) and of(v) for k, v in value.items())


def is_summary(value: Any, depth: int = 2) -> bool:
    """Tell whether a value is a summary of figures: numbers by name, and under `item` and others such summaries."""
    return isinstance(value, Mapping) and all(_is_entry(name, each, depth) for name, each in value.items())


def _is_entry(name: str, value: Any, depth: int) -> bool:
    if isinstance(value, Mapping):
        return depth > 0 and is_summary(value, depth - 1)
    if name.startswith(("recall@", "ndcg@")):
        return bool(_FIGURE.fullmatch(name)) and (value is None or is_number(value))
    return is_scalar(value)


def is_metrics(value: Mapping[str, Any]) -> bool:
    """Tell whether a document is metrics.json, or figures of another protocol beside it."""
    return all(test(value.get(name)) for name, test in _METRICS.items())


def _is_training(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping) or not isinstance(value.get("history"), list):
        return False
    numbers = {name: each for name, each in value.items() if name != "history"}
    return is_mapping(numbers, is_scalar) and all(is_mapping(line, is_scalar) for line in value["history"])


def _is_fusion(value: Any) -> bool:
    """Tell whether a value is what a hybrid's stage chose, or nothing."""
    if value is None:
        return True
    if not isinstance(value, Mapping) or not isinstance(value.get("fusion"), Mapping):
        return False
    chosen, best = value["fusion"], value.get("best")
    named = isinstance(value.get("by"), str) and isinstance(chosen.get("kind"), str)
    return named and is_number(chosen.get("weight")) and is_mapping(best, lambda each: is_mapping(each, is_number))


def _by_stage(of: Test) -> Test:
    """Return the test of what maps stages to splits, and these to values of a kind."""
    return lambda value: is_mapping(value, lambda splits: is_mapping(splits, of), "[1-9][0-9]{0,5}")


def _none_or_number(value: Any) -> bool:
    return value is None or is_number(value)


_METRICS: Mapping[str, Test] = {
    "protocol": lambda value: is_mapping(value, is_scalar) and type(value.get("top_k", 1)) is int,
    "data": lambda value: is_mapping(value, lambda digest: isinstance(digest, str), "[1-9][0-9]{0,5}"),
    "evaluated": _by_stage(is_summary),
    "groups": _by_stage(lambda value: is_mapping(value, is_summary)),
    "training": _is_training,
    "fusion": _is_fusion,
    "seconds": lambda value: value is None or is_mapping(value, _none_or_number),
    "stored_bytes": _none_or_number,
    "peak_bytes": _none_or_number,
}


def refuse_unbounded(text: str) -> None:
    """Raise ValueError for a YAML document that is nested deeply, or repeats parts by reference.

    A few lines of either are enough to fill any memory; what peso writes has neither.
    """
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
            raise ValueError("holds aliases or is nested too deeply, which settings never are")
