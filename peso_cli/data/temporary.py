"""Folders in which something is made beside the place where it will lie, and which leave nothing behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from peso_cli.errors import RunError
from peso_cli.files import fsync_folder

_LOCK = "lock"
"""A file that is locked as long as somebody works in the folder; the system opens it when they die."""


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Give a folder beside `target` and remove it in every case, with those that killed processes have left there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_deserted(target)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(folder: Path, target: Path) -> None:
    """Rename a finished folder to `target`, which may be an empty folder.

    Raises:
        RunError: something has come into being there.
    """
    for path in [*folder.rglob("*/"), folder]:
        fsync_folder(path)
    try:
        folder.rename(target)
    except OSError:
        if not target.exists():
            raise
        raise RunError(f"{target}: came into being while it was made here too; it is left as it is") from None
    fsync_folder(target.parent)


def _remove_deserted(target: Path) -> None:
    for folder in target.parent.glob(f".{target.name}.*.part"):
        with suppress(OSError), os.fdopen(os.open(folder / _LOCK, os.O_WRONLY), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
