"""Writing files so that nothing half-written is ever taken for finished, and reading back what was promised."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Name `path` in an error of the system that names no place, whichever library met it while the block runs.

    Raises:
        OSError: with the system's own words and a file name.
    """
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise _system_error(error.errno, error, path) from None
    except SafetensorError as error:
        # Its words hold the number: "I/O error: No space left on device (os error 28)".
        number = re.search(r"\(os error (\d+)\)", str(error))
        raise _system_error(int(number[1]) if number else None, error, path) from None


def _system_error(number: int | None, error: Exception, path: Path) -> OSError:
    words = os.strerror(number) if number else (str(error).strip() or repr(error)).splitlines()[0]
    return OSError(number or errno.EIO, words, str(path))


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with blaming(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Flush a file's bytes to disk, whoever wrote them."""
    with blaming(path), path.open("rb+") as handle:
        os.fsync(handle.fileno())


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it, then rename it into place.

    Raises:
        OSError: it can't be written; what was at `path` is still there, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with blaming(path):
            write(temporary)
        fsync_file(temporary)
        temporary.replace(path)
    finally:
        # What can't be removed now must not hide why the writing failed; nothing reads it.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors, wherever they lie and whatever they share, to `path` atomically as safetensors."""
    from safetensors.torch import save_file

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, lambda part: save_file(own, part, metadata))


def read_json(path: Path) -> Any:
    """Read the JSON document at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
