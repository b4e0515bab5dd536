"""`log.jsonl`, the run folder's own record of a stage: one JSON object a line.

It holds no times, so equal runs leave equal bytes, and a resumed run leaves the bytes of one that was never stopped.
Appended to line by line, it is the one file that is not written atomically; a reader skips a last line that lacks its
end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from peso_cli.errors import InputError, RunError


class RunLog:
    """An open `log.jsonl`. Every line is in the file once `write` returns."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    @classmethod
    def open(cls, path: Path, keep_bytes: int | None) -> RunLog:
        """Open a log to append to.

        Args:
            path: the file; made, with its folder, where it is missing.
            keep_bytes: how much of an existing log to keep, in bytes: 0 starts anew, a checkpoint's `position` goes on
                from there, None keeps every whole line.

        Raises:
            RunError: the log is shorter than `keep_bytes`, or that position is not the end of a line.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        if keep_bytes is None:
            keep_bytes = content.rfind(b"\n") + 1
        kept = content[:keep_bytes]
        if len(kept) < keep_bytes or not (kept == b"" or kept.endswith(b"\n")):
            raise RunError(f"{path}: byte {keep_bytes} is no line's end; delete the checkpoint and retrain")
        handle = path.open("ab")
        handle.truncate(keep_bytes)
        handle.seek(keep_bytes)  # truncation leaves the position where the end was
        return cls(handle)

    @property
    def position(self) -> int:
        """Length of the log in bytes, on disk for certain: what a checkpoint stores."""
        os.fsync(self._handle.fileno())
        return self._handle.tell()

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line."""
        self._handle.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._handle.flush()

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a log, leaving out a last line that was cut short.

    Raises:
        InputError: the file is missing, or a whole line of it is not a JSON object.
    """
    try:
        *whole, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; has this stage been trained?") from None
    return [_parse(path, number, line) for number, line in enumerate(whole, start=1)]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}:{number}: not a JSON object; restore the file or train the stage anew")
    return value
