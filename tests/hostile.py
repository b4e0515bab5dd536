"""Input that nobody means well with: random words, damaged documents, and what every command must make of them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from commands.running import Answer

SECRET = "s3cr3t-of-the-environment"
"""What environment variables hold in these tests, and what must be found nowhere."""

ODD_TEXTS = (
    "",
    " ",
    "null",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://example.org\x07link\x1b]8;;\x07",
    "\x9b2J",
    "\u202egnp.exe",
    "\u2066x",
    "a\u2028b",
    "[/red][bold]",
    ":smile:",
    "<script>alert(1)</script>",
    "../../up",
    "/etc/passwd",
    "con",
    "x" * 300,
    "a\nb\tc\rd",
    "\x00",
    "\x7f\x08\x08",
    "\ud800",
    "\U0001d4b3\u0301",
    "${oc.env:HOME}",
    "'\"\\",
    "NaN",
    "trailing. ",
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    {"": None},
    [1, "a", None],
    *ODD_TEXTS,
)


def seeds(most: int) -> list[Any]:
    """Seeds of generators: the first one always counts, the others when tests may take minutes."""
    return [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, most))]


def harmless(answer: Answer, *noted: str) -> None:
    """Check that a command did its work or refused in one line, and that nothing odd reaches the terminal.

    Args:
        noted: how other lines on standard error may begin.
    """
    assert answer.code in (0, 1, 2), answer
    *notes, last = answer.err.splitlines() or [""]
    if answer.code:
        assert last.startswith("peso: "), answer
    else:
        notes.append(last)
    assert all(note.startswith(("left out: ", *noted)) or not note for note in notes), answer
    text = answer.out + answer.err
    assert "Traceback" not in text
    assert SECRET not in text
    assert not unprintable(text), (unprintable(text), answer)


def unprintable(text: str) -> set[str]:
    """The characters of a text that a terminal would obey, or couldn't show."""
    return {sign for sign in text if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t"} | (
        set(text) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u2028\u2029")
    )


def places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) pairs inside a JSON document."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def damaged(document: Any, random: Random) -> Any:
    """A JSON document with a few of its places changed, removed or added to."""
    value = json.loads(json.dumps(document))
    for _ in range(random.randint(1, 3)):
        if not (found := places(value)):
            return random.choice(ODD_VALUES)
        container, key = random.choice(found)
        kind = random.randrange(4)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[random.choice(ODD_TEXTS)] = container.pop(key)
        else:
            container[key] = random.choice(ODD_VALUES)
    return value


def broken_bytes(content: bytes, random: Random) -> bytes:
    """A file whose bytes were cut, changed, doubled or replaced."""
    place = random.randrange(len(content) + 1)
    noise = bytes(random.randrange(256) for _ in range(random.randint(1, 4)))
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: content[:place],
        lambda: content[:place] + noise + content[place + len(noise) :],
        lambda: content[place:] + content[:place],
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content + content,
        lambda: content.replace(b":", b': 1e400, "x":', 1),
        lambda: content.decode("utf-8", "replace").encode("utf-16"),
        lambda: b"",
        lambda: b"[" * 100_000,
        lambda: b'{"a":' * 50_000,
        lambda: b"9" * 10_000,
        lambda: noise * 50,
    )
    return random.choice(ways)()


def hostile_json(document: Any, random: Random) -> bytes:
    """A file that should hold a JSON document, and holds another, or none."""
    changed = damaged(document, random) if random.random() < 0.75 else document
    content = json.dumps(changed).encode()
    return content if changed is not document else broken_bytes(content, random)


def surroundings(folder: Path) -> dict[str, int]:
    """The files under a folder, with their sizes; of a link its own."""
    return {str(path.relative_to(folder)): path.lstat().st_size for path in sorted(folder.rglob("*"))}
