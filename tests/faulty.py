"""A system that fails: the k-th writing operation under a folder ends as on a full, broken or read-only disk."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet
import safetensors.torch
from safetensors import SafetensorError


class Faults:
    """Counts the writing operations under a folder while open, and lets one of them, by number or name, fail.

    Attributes:
        operations: what was done, in order: "mkdir stage_1", "fsync DONE", ...
    """

    def __init__(self, folder: Path, at: int | str | None = None, number: int = 0) -> None:
        self.folder, self.at, self.number = str(folder), at, number
        self.operations: list[str] = []
        self._patches = ExitStack()

    def __enter__(self) -> Faults:
        for name in ("mkdir", "replace", "rename", "unlink", "rmdir", "open"):
            self._wrap(os, name, lambda path, *rest: path)
        self._wrap(os, "fsync", lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
        opened = self._opening(io.open)
        for module in (io, builtins):
            self._patches.enter_context(patch.object(module, "open", opened))
        self._wrap_library(safetensors.torch, "serialize_file", self._safetensors_error)
        self._wrap_library(pyarrow.parquet, "write_table", self._arrow_error)
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def count(self, what: str, path: object) -> bool:
        """Note an operation; tell whether it is the one that fails."""
        if not str(path).startswith(self.folder):
            return False
        self.operations.append(f"{what} {Path(str(path)).name}")
        return self.at in (len(self.operations) - 1, self.operations[-1])

    def error(self, path: object = None) -> OSError:
        """What the system says of the operation that fails."""
        named = () if path is None else (str(path),)
        return OSError(self.number, os.strerror(self.number), *named)

    def _wrap(self, module: Any, name: str, place: Callable[..., object]) -> None:
        original = getattr(module, name)

        def call(*arguments: Any, **rest: Any) -> Any:
            path = place(*arguments)
            if self.count(name, path):
                raise self.error(None if name == "fsync" else path)
            return original(*arguments, **rest)

        self._patches.enter_context(patch.object(module, name, call))

    def _wrap_library(self, module: Any, name: str, error: Callable[[], Exception]) -> None:
        original = getattr(module, name)

        def call(content: Any, path: Any, *arguments: Any, **rest: Any) -> Any:
            if self.count(name, path):
                Path(path).write_bytes(b"half of it")
                raise error()
            return original(content, path, *arguments, **rest)

        self._patches.enter_context(patch.object(module, name, call))

    def _opening(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: str = "r", *arguments: Any, **rest: Any) -> Any:
            if not isinstance(path, str | Path) or not set(mode) & set("wax+"):
                return original(path, mode, *arguments, **rest)
            if self.count("open", path):
                raise self.error(path)
            return _File(original(path, mode, *arguments, **rest), self, path)

        return opened

    def _safetensors_error(self) -> Exception:
        words = os.strerror(self.number)
        return SafetensorError(f"Error while serializing: I/O error: {words} (os error {self.number})")

    def _arrow_error(self) -> Exception:
        words = os.strerror(self.number)
        return OSError(self.number, f"Error writing bytes to file. Detail: [errno {self.number}] {words}")


class _File:
    """An open file whose writes are counted; the one that fails writes half of what it was given."""

    def __init__(self, file: Any, faults: Faults, path: object) -> None:
        self._file, self._faults, self._path = file, faults, path

    def write(self, data: Any) -> int:
        if self._faults.count("write", self._path):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise self._faults.error()
        return int(self._file.write(data))

    def truncate(self, size: int) -> int:
        if self._faults.count("truncate", self._path):
            raise self._faults.error()
        return int(self._file.truncate(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
