"""Locks between processes: a file that one of them holds; the holder's death, by whatever cause, sets it free."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

_POLL_SECONDS = 0.2


@contextmanager
def hold(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock while the block runs; its file is there only meanwhile.

    The lock is the operating system's own (flock, which network file systems pass on); where a file system has none,
    the existence of the file takes its place.

    Args:
        path: the lock's file, the same for all that want the same thing.
        waiting: called once if another process holds it, before waiting for that.
    """
    lock = _try(path)
    if lock is None:
        waiting()
        while (lock := _try(path)) is None:
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        # Whoever waits for a file that was removed notices, and takes the next one.
        try:
            path.unlink(missing_ok=True)
        finally:
            lock.release()


def is_held(path: Path) -> bool:
    """Tell whether a living process, this one included, holds a lock."""
    if not path.exists():
        return False
    lock = _try(path)
    if lock is None:
        return True
    lock.release()
    return False


def _try(path: Path) -> BaseFileLock | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, FileNotFoundError):
        # The folder may have been removed, as an empty one, by the process that held the lock before.
        return None
    return lock
