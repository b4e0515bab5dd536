"""Reading back what W&B wrote offline: a LevelDB log (blocks of 32 KiB, 7-byte record headers) of protobuf records."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FULL, _LAST = 1, 4


@dataclass
class WandbRun:
    """What one `.wandb` file holds."""

    id: str = ""
    entity: str = ""
    project: str = ""
    group: str = ""
    name: str = ""
    host: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    def points(self, axis: str) -> list[dict[str, Any]]:
        """The logged rows that have this axis, without W&B's own keys."""
        rows = [{key: value for key, value in row.items() if key[0] != "_"} for row in self.history]
        return [row for row in rows if axis in row]


def read_run(folder: Path) -> WandbRun:
    """Read the only W&B run in a stage's folder."""
    (path,) = folder.glob("wandb/*run-*/run-*.wandb")
    run = WandbRun()
    for record in _records(path.read_bytes()):
        match record.WhichOneof("record_type"):
            case "run":
                run.id, run.project, run.group = record.run.run_id, record.run.project, record.run.run_group
                run.entity, run.tags = record.run.entity, tuple(record.run.tags)
                run.name, run.host = record.run.display_name, record.run.host
                run.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "metric":
                run.axes[record.metric.name] = record.metric.step_metric
            case "history":
                run.history.append(_nested(record.history.item))
            case "exit":
                run.exit_code = record.exit.exit_code
    return run


def read_table(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Read the table that a history row's `samples` points to."""
    (files,) = folder.glob("wandb/*run-*/files")
    return json.loads((files / row["samples"]["path"]).read_text())


def _records(data: bytes) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    position, part = 7, b""  # a file header as long as a record's
    while position + 7 <= len(data):
        if _BLOCK - position % _BLOCK < 7:
            position += _BLOCK - position % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        part += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (_FULL, _LAST):
            yield Record.FromString(part)
            part = b""


def _nested(items: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = row
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return row
