"""Texts from outside, without what a terminal or a page would obey rather than show."""

from __future__ import annotations

import json
import re
from typing import Any

_TERMINAL = re.compile(
    r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b]*+(?:\x07|\x1b\\)?|[ -/]*+[0-~])?|\x9b[0-?]*+[ -/]*+[@-~]"
)
"""ANSI escape sequences: CSI (colours, cursor), OSC (titles, links), two-character ones, and an escape on its own."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff0-\ufffb\ufffe\uffff]"
)
"""Control characters but for tab and line feed, what turns the direction of the text around it, and what is no
character at all."""

_HALVES = re.compile("[\ud800-\udfff]")

_LONGEST = 4000
"""Characters of a line that says what is wrong."""


def is_text(text: str) -> bool:
    """Tell whether a text holds whole characters alone, so that it can be written down."""
    return _HALVES.search(text) is None


def printable(text: str) -> str:
    """Return a text without control characters, characters that steer its direction, and halves of characters.

    What remains is as wide as it was: the rest of an escape sequence is shown as the letters that it is.
    """
    return _HALVES.sub("\N{REPLACEMENT CHARACTER}", _UNSEEN.sub("", text))


def cleaned(text: str) -> str:
    """Return a text without terminal escapes, control characters, and characters that steer its direction."""
    return printable(_TERMINAL.sub("", text))


def one_line(text: str) -> str:
    """Return a message as one printable line; the middle of a very long one is left out."""
    line = printable(" ".join(text.splitlines()))
    if len(line) <= _LONGEST:
        return line
    return f"{line[: _LONGEST // 2]} \N{HORIZONTAL ELLIPSIS} {line[-_LONGEST // 2 :]}"


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a JSON document that people can read; what can't be shown as it is stands escaped, so none is lost."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    # Such characters are only ever inside strings.
    return _HALVES.sub(_escape, _UNSEEN.sub(_escape, text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
