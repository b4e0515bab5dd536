"""Which files are opened, as the kernel tells it: by Python, by libraries, by whatever they are written in."""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_OPENED, _FOLDER = 0x20, 0x40000000
_HEAD = struct.Struct("iIII")


class Watch:
    """Counts the openings of files under folders, from when each folder is given on (inotify(7))."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._handle = self._library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._handle >= 0, os.strerror(ctypes.get_errno())
        self._folders: dict[int, Path] = {}

    def add(self, folders: Iterable[Path]) -> None:
        """Watch folders and all below them."""
        for top in folders:
            for folder in (top, *(path for path in top.rglob("*") if path.is_dir())):
                number = self._library.inotify_add_watch(self._handle, os.fsencode(folder), _OPENED)
                assert number >= 0, os.strerror(ctypes.get_errno())
                self._folders[number] = folder

    def take(self) -> Counter[Path]:
        """Return how often each file was opened since the last call."""
        found: Counter[Path] = Counter()
        while data := self._read():
            at = 0
            while at < len(data):
                number, kind, _, length = _HEAD.unpack_from(data, at)
                name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0").decode()
                at += _HEAD.size + length
                if not kind & _FOLDER and name:
                    found[self._folders[number] / name] += 1
        return found

    def close(self) -> None:
        """Stop watching."""
        os.close(self._handle)

    def _read(self) -> bytes:
        try:
            return os.read(self._handle, 1 << 20)
        except BlockingIOError:
            return b""
