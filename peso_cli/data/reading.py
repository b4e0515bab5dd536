"""Reading JSON files that people made: every defect is one line with the file and the place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from peso_cli.errors import InputError

Pairs = list[tuple[str, Any]]


def read_object(path: Path, hook: Callable[[Pairs], Any] | None = None) -> dict[str, Any]:
    """Read a file that holds one JSON object, refusing duplicate keys.

    Args:
        path: the file.
        hook: what to make of each inner object from its (key, value) pairs; by default a dict.

    Raises:
        InputError: the file is missing, unreadable, not JSON, not an object, or repeats a key.
    """

    def build(pairs: Pairs) -> Any:
        refuse_duplicates(pairs, path)
        return hook(pairs) if hook else dict(pairs)

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=build)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: not valid JSON ({error.msg}); is it whole?") from None
    except ValueError:
        raise InputError(f"{path}: holds a number of too many digits to be read") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a data file") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__} where one JSON object is needed")
    _refuse_broken_characters(value, path)
    return value


def refuse_duplicates(pairs: Pairs, path: Path) -> None:
    """Raise InputError if a key occurs twice in one JSON object."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        seen: set[str] = set()
        twice = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError(f"{path}: key {twice!r} occurs twice; keep one of the two")


def _refuse_broken_characters(keys: Iterable[str], path: Path) -> None:
    """Refuse ids with a lone half of a surrogate pair (JSON can escape one), which no file could take up again."""
    try:
        "".join(keys).encode()
    except UnicodeEncodeError as error:
        before = error.object[max(error.start - 10, 0) : error.start]
        raise InputError(f"{path}: a key holds half a surrogate pair, behind {before!r}; write it out") from None
