"""Locks between processes: a file that one of them holds; the holder's death, by whatever cause, sets it free.

The lock is the operating system's own (flock). On network file systems:

- NFS (Linux) and SMB pass it on to the server: it holds between machines. A holder's death sets it free at once, the
  death of its whole machine as soon as the server gives the client up (NFS 4: after its lease, some 90 seconds; NFS 3:
  when the machine is up again).
- Lustre, and clusters' file systems like it, pass it on where they are mounted with `flock`. Mounted with `localflock`
  (NFS: `local_lock`) it holds between the processes of one machine only, and nothing can tell: runs that may want the
  same stage must then start on one machine.
- Where the system knows no flock at all (ENOSYS, as Lustre mounted without), a file with the holder's process and
  machine takes its place. A dead holder's is then taken over on its own machine, if the file system can exchange two
  names; elsewhere it stays until somebody removes the file.
- Where locks fail otherwise (no lock server, an NFS mount that refuses them), nothing is held and the run says so.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from peso_cli.errors import RunError

_POLL_SECONDS = 0.2

_REMOVED = (errno.ENOENT, errno.ESTALE)
"""How the system says that the file, or its folder, went away meanwhile; the second one on NFS."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
"""How it says that files can't be locked here."""


@contextmanager
def hold(path: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock while the block runs; its file is there only meanwhile.

    Args:
        path: the lock's file, the same for all that want the same thing.
        waiting: called once if another process holds it, before waiting for that.

    Raises:
        RunError: files can't be locked there.
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
    except Timeout:
        return None
    except OSError as error:
        # The process that held the lock before removes its file, and the folder if it is empty then.
        if error.errno in _REMOVED:
            return None
        if error.errno not in _NO_LOCKS:
            raise
        path.unlink(missing_ok=True)
        reason = f"files can't be locked there ({error.strerror})"
        raise RunError(f"{path}: {reason}; mount it with locks, or give another output=") from None
    return lock
