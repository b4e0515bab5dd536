"""Markup that is safe by construction: every text in it has been cleaned and escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from peso_cli.characters import cleaned

_EMPTY = frozenset(("br", "link", "meta"))
"""Elements without an end tag."""

_LONGEST = 160
"""Characters of a text that nobody vouches for."""


@dataclass(frozen=True)
class Html:
    """A piece of the page; made by `tag` and `joined` alone."""

    markup: str


Piece = Html | str
"""Markup as it is, or a text that is still to be cleaned and escaped."""


def tag(name: str, attributes: Mapping[str, str], *children: Piece) -> Html:
    """Return an element; texts and the attributes' values are cleaned and escaped."""
    given = "".join(f' {key}="{escape(cleaned(value))}"' for key, value in attributes.items())
    if name in _EMPTY:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(children).markup}</{name}>")


def joined(children: Iterable[Piece]) -> Html:
    """Return pieces one after another."""
    parts = (child.markup if isinstance(child, Html) else escape(cleaned(child), quote=False) for child in children)
    return Html("".join(parts))


def foreign(text: str) -> Html:
    """Return a text from outside (an id, a title) on one line, not too long, its direction kept to itself."""
    line = " ".join(cleaned(text[: 64 * _LONGEST]).split())
    return tag("bdi", {}, line if len(line) <= _LONGEST else f"{line[:_LONGEST]}\N{HORIZONTAL ELLIPSIS}")


def code(text: str) -> Html:
    """Return a command, or another text that means what it says to the letter."""
    return tag("code", {"translate": "no"}, text)


def folded(summary: str, *children: Piece) -> Html:
    """Return what is there on demand: its summary, and the rest behind it."""
    return tag("details", {}, tag("summary", {}, summary), *children)
