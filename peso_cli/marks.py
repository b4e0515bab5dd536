"""What a finished stage's mark says: the checksum of every file, of the stage's own figures, and of the mark itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_GROWING = ("data", "evaluated", "groups")
"""What metrics.json may gain later: figures on other users."""

_OLD = {"format", "files"}
"""What marks without a checksum of their own hold."""


def sealed(mark: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mark with its own checksum."""
    return {**mark, "checksum": _checksum(mark)}


def is_whole(mark: Mapping[str, Any]) -> bool:
    """Tell whether a mark is what was written once; one of old has no checksum, and nothing but what was usual then."""
    if not isinstance(mark.get("format"), int) or not isinstance(mark.get("files"), dict):
        return False
    rest = {name: value for name, value in mark.items() if name != "checksum"}
    return mark.keys() == _OLD or mark.get("checksum") == _checksum(rest)


def own_figures(metrics: Mapping[str, Any]) -> str:
    """Return the checksum of what metrics.json holds from the beginning: all but figures on other users."""
    stage = str(metrics.get("stage"))
    fixed = {name: value for name, value in metrics.items() if name not in _GROWING}
    return _checksum({**fixed, **{kind: _inside(metrics, kind, stage, "test") for kind in ("evaluated", "groups")}})


def _inside(value: Any, *keys: str) -> Any:
    """Return what lies under some keys, None where there is nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
