"""Vectors of texts that were embedded before, in Parquet files that are only ever added."""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from peso_cli.errors import RunError
from peso_cli.files import write_atomically
from peso_cli.semantic_ids.parts import Floats

_PART = re.compile(r"part_[0-9]{6,}\.parquet")


def text_key(text: str) -> bytes:
    """Return what a text is found by."""
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class VectorCache:
    """A folder of parts: `text` (SHA-256 of a text) and `vector` (float32, one width). A text comes once.

    Several processes may read and add at the same time: who adds waits for the others, and leaves out what they were
    faster with.

    Attributes:
        folder: where the parts lie.
    """

    folder: Path

    def known(self) -> set[bytes]:
        """Return the keys of all texts.

        Raises:
            RunError: a part is damaged.
        """
        return {key for part in self._parts() for key in _read(part, ["text"])["text"].to_list()}

    def add(self, keys: Sequence[bytes], vectors: Floats) -> None:
        """Add the (texts, width) vectors of texts; those that are there already stay as they are.

        Raises:
            RunError: a part is damaged.
        """
        with self._alone():
            known = self.known()
            new = [row for row, key in enumerate(keys) if key not in known]
            if not new:
                return
            width = pl.Array(pl.Float32, vectors.shape[1])
            columns = {"text": [keys[row] for row in new], "vector": vectors[new]}
            frame = pl.DataFrame(columns, schema={"text": pl.Binary, "vector": width})
            write_atomically(self._next(), lambda part: frame.write_parquet(part, compression="uncompressed"))

    def vectors(self, keys: Sequence[bytes]) -> Floats:
        """Return the (texts, width) vectors of texts, at least one; a text may be asked for several times.

        Raises:
            RunError: a part is damaged, or a text isn't there.
        """
        rows: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        found = np.zeros((len(keys), 0), dtype=np.float32)
        for path in self._parts():
            part = _read(path, ["text", "vector"])
            stored = part["vector"].to_numpy()
            found = found if found.shape[1] else np.zeros((len(keys), stored.shape[1]), dtype=np.float32)
            for vector, key in zip(stored, part["text"].to_list(), strict=True):
                if key in rows:
                    found[rows.pop(key)] = vector
        if rows:
            raise RunError(f"{self.folder}: lost {len(rows)} texts while they were read; the same command embeds them")
        return found

    def _parts(self) -> list[Path]:
        """The parts, in the order in which they came."""
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted((path for path in paths if _PART.fullmatch(path.name)), key=_number)

    def _next(self) -> Path:
        """Where the next part goes; a part that somebody removed leaves its number unused."""
        last = max(map(_number, self._parts()), default=0)
        return self.folder / f"part_{last + 1:06}.parquet"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process adds; a lock ends with its process, however that ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def _number(part: Path) -> int:
    return int(part.stem.removeprefix("part_"))


def _read(path: Path, columns: list[str]) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=columns, use_pyarrow=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0][:200]
        raise RunError(f"{path}: can't be read ({reason}); remove the file, its texts are embedded again") from None
