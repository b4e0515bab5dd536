"""Reading embeddings and the ids of their rows from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.errors import InputError
from peso_cli.semantic_ids.parts import Floats, Items

if TYPE_CHECKING:
    from peso_cli.semantic_ids.embeddings.array import ArrayEmbedding
    from peso_cli.stages import Display


def read_embeddings(settings: ArrayEmbedding, items: Items, display: Display) -> Floats:
    """Return (items, width) vectors out of a file; only the rows of items are read.

    Raises:
        InputError: a file is missing or broken, doesn't fit the items, or holds what is no number.
    """
    path = Path(settings.path)
    stored = _open(path)
    rows = _rows(settings, items, len(stored), path)
    if len(stored) > len(rows):
        display.say(f"array: {len(stored) - len(rows)} of {len(stored)} rows are of no item of the dataset")
    with np.errstate(over="ignore"):  # what is too large for float32 is refused below
        vectors = np.ascontiguousarray(stored[rows], dtype=np.float32)
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        first = broken[0]
        raise InputError(
            f"{path}: row {rows[first]} (item {items.ids[first]!r}) holds NaN, an infinity or a number beyond float32, "
            f"as do {len(broken) - 1} others; write finite numbers"
        )
    return vectors


def _open(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"embedding.path={path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from None
    except (ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{path}: not a whole .npy file of numbers ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(stored, np.ndarray):
        raise InputError(f"{path}: holds several arrays; save one with numpy.save")
    if stored.ndim != 2 or stored.dtype.kind != "f" or not stored.shape[1]:
        raise InputError(
            f"{path}: holds {stored.dtype} of shape {stored.shape}; needed is one row of floating-point numbers an item"
        )
    return stored


def _rows(settings: ArrayEmbedding, items: Items, count: int, path: Path) -> NDArray[np.int64]:
    """Return (items,) the row of each item."""
    if settings.items is None:
        if count != len(items.ids):
            hint = "name the rows' items with embedding.items=FILE"
            raise InputError(f"{path}: holds {count} rows for {len(items.ids)} items; {hint}")
        return np.arange(count)
    named = Path(settings.items)
    row = _numbered(named)
    if len(row) != count:
        raise InputError(f"{named}: names {len(row)} items, but {path} holds {count} rows")
    missing = [item for item in items.ids if item not in row]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(f"{named}: lacks item {missing[0]!r}{others} of the dataset; embed every item")
    return np.array([row[item] for item in items.ids], dtype=np.int64)


def _numbered(path: Path) -> dict[str, int]:
    """Return the row of each id that a file names."""
    ids = _ids(path)
    row = {item: number for number, item in enumerate(ids)}
    if len(row) < len(ids):
        first = next(item for number, item in enumerate(ids) if row[item] != number)
        raise InputError(f"{path}: names item {first!r} twice; keep one of the two rows")
    return row


def _ids(path: Path) -> list[str]:
    try:
        content = path.read_text(encoding="utf-8")
        listed = json.loads(content) if path.suffix == ".json" else content.splitlines()
    except FileNotFoundError:
        raise InputError(f"embedding.items={path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: not valid JSON ({error.msg})") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not a JSON list of item ids") from None
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise InputError(f'{path}: needs a list of ids as text, such as ["B00X", "17"]')
    return listed
