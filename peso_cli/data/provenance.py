"""What a dataset was built from and how, and whether that is what is asked for now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peso_cli.data.raw import Cleaning, RawDataset, Split
from peso_cli.files import sha256

_CHEAP = 2 << 30
"""Bytes up to which files are read once more for their checksum."""

Settings = dict[str, Any]


def settings_of(dataset: RawDataset, cleaning: Cleaning, split: Split) -> Settings:
    """Return what determines a dataset, as it stands in JSON; of the ways to split, only the one that is taken."""
    source = {name: value for name, value in asdict(dataset).items() if name != "path"}
    chosen = {name: getattr(split, name) for name in ("kind", "by", split.by, "min_events")}
    plain: Settings = json.loads(json.dumps({"dataset": source, "cleaning": asdict(cleaning), "split": chosen}))
    return plain


def inputs_of(names: Sequence[str]) -> dict[str, Any]:
    """Return, for each input that is a file or folder here, its bytes and, where that is cheap, its SHA-256."""
    return {name: _contents(Path(name)) for name in names if Path(name).exists()}


def _contents(path: Path) -> dict[str, Any]:
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    if size > _CHEAP:
        return {"bytes": size}
    if path.is_file():
        return {"bytes": size, "sha256": sha256(path)}
    state = hashlib.sha256()
    for file in files:
        state.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\0".encode())
    return {"bytes": size, "sha256": state.hexdigest()}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield in words where two settings differ."""
    for key in dict.fromkeys([*before, *now]):
        one, other = before.get(key), now.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key}={json.dumps(one)}, not {json.dumps(other)}"
