"""Plain UTF-8 copies of packed or otherwise encoded files, in a temporary folder beside the cache."""

from __future__ import annotations

import atexit
import gzip
import shutil
import tempfile
import zlib
from functools import cache
from pathlib import Path

from peso_cli.errors import InputError, RunError
from peso_cli.resources.cache import cache_folder

_STEP = 1 << 20


def unpacked(path: Path, shown: str) -> Path:
    """Return a plain copy of a gzip file: readers that start in its middle would hold all of it in memory.

    Raises:
        InputError: it isn't a whole gzip file.
        RunError: the copy can't be written.
    """
    copy = _place(path.name.removesuffix(".gz"))
    try:
        with gzip.open(path) as packed, copy.open("wb") as plain:
            shutil.copyfileobj(packed, plain, _STEP)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        copy.unlink(missing_ok=True)
        raise InputError(f"{shown}: not a whole gzip file ({error}); get it again") from None
    except OSError as error:
        copy.unlink(missing_ok=True)
        raise RunError(f"{shown}: can't be unpacked into {copy.parent} ({error.strerror or error})") from None
    return copy


def as_utf8(path: Path) -> Path:
    """Return a file of text as UTF-8: itself, or a copy where its bytes are Latin-1. It is read as a whole."""
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        copy = _place(path.name)
        copy.write_text(content.decode("latin-1"), encoding="utf-8", newline="")
        return copy
    return path


def _place(name: str) -> Path:
    """Return a new place for a copy of a file of this name."""
    return Path(tempfile.mkdtemp(dir=_folder())) / name


@cache
def _folder() -> Path:
    """The folder of this process, which goes when the process ends."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=cache_folder()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
