"""Plain text out of what shops and their APIs store: HTML, style sheets, escapes, control characters, printed lists."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

ROUNDS: Final = 8
"""Most times that a text is read as HTML: entities may hold markup, and that more entities. What is left after that is
made harmless character by character."""

_INLINE = frozenset(
    ("a", "abbr", "b", "big", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u")
)
"""Tags that don't end a word."""

_HIDDEN = frozenset(("script", "style"))

_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*+(?:\x07|\x1b\\)?|[ -/]*[0-~])?")
"""ANSI escape sequences: CSI (colours, cursor), OSC (titles, links), two-character ones, and an escape on its own."""

_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
"""Control characters that aren't white space, and marks that only steer how text is laid out. The joiners U+200C and
U+200D stay: words of Persian and Hindi, and emoji, need them."""

_HUGE_NUMBER = re.compile(r"&#[0-9]{9,};?")
"""References to characters that don't exist, some of them too long to be read as a number."""

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)|<[!?][^>]*+>?", re.DOTALL)
"""Comments (one that isn't closed hides the rest, as in browsers), declarations and processing instructions."""

_TAG = re.compile(r"<[A-Za-z/][^<>]*+>|</?(?:br|div|li|p|span|ul)\s*+/?\Z", re.IGNORECASE)
"""What the parser left of tags, and a tag that the end of the text cut off."""

_STYLE_RULE = re.compile(r"(?<![\w.#*:>,+~-])[\w.#*:>,+~-]++\s*+\{\s*+(?:/\*[^{}]*?\*/\s*+)?[a-z-]++\s*+:[^{}]*+\}")
"""A rule of a style sheet that lost the tag around it, such as `td.callout { width: 250px; }`, with the last word of
its selector."""

_HARMLESS = str.maketrans(dict.fromkeys("<&{\x1b", " "))

_WORTH_READING = re.compile(
    r"[<&{\x00-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Most texts hold none of these and are done once their white space is."""

_LITERAL = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""
_PRINTED_LIST = re.compile(rf"\s*+\[\s*+(?:(?:{_LITERAL})\s*+(?:,\s*+(?:{_LITERAL})\s*+)*+,?\s*+)?\]\s*+", re.DOTALL)
_STRING = re.compile(_LITERAL, re.DOTALL)
_DAMAGED_LIST = re.compile(r"""\s*+\[['"](.*)['"]\s*+\]\s*+""", re.DOTALL)
_BETWEEN_STRINGS = re.compile(r"""['"], ['"]""")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_SPACES = frozenset("nrtvf\n")


def clean(text: str) -> str:
    """Return the plain text of a piece of HTML, on one line.

    Gone are tags, comments, scripts, style sheets, terminal escapes, control characters and halves of surrogate pairs;
    entities are resolved, white space is folded. Cleaning what is clean changes nothing. Never raises.
    """
    if not _WORTH_READING.search(text):
        return " ".join(text.split())
    for _ in range(ROUNDS):
        before, text = text, _read_once(text)
        if text == before:
            return text
    return _read_once(text.translate(_HARMLESS))


def unwrapped(text: str) -> list[str]:
    """Return the strings of a list that was printed by Python or as JSON, `['a', "b"]`; else the text alone.

    The strings are found by their quotes, not evaluated, in time linear in the length. A list whose quotes don't fit,
    because some apostrophes lost their backslashes, is split where `', '` stands.
    """
    if _PRINTED_LIST.fullmatch(text):
        strings = [literal[1:-1] for literal in _STRING.findall(text)]
    elif damaged := _DAMAGED_LIST.fullmatch(text):
        strings = _BETWEEN_STRINGS.split(damaged[1])
    else:
        return [text]
    return [_ESCAPE.sub(_meant, string) for string in strings]


def whole_characters(text: str) -> str:
    """Join surrogate pairs, as JSON escapes them, to the characters that they stand for, and drop lone halves."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def _meant(escape: re.Match[str]) -> str:
    """Return the character that an escape in a string literal stands for."""
    code = escape[1] or escape[2]
    return chr(int(code, 16)) if code else " " if escape[3] in _SPACES else escape[3]


def _read_once(text: str) -> str:
    text = _INVISIBLE.sub("", _TERMINAL.sub("", whole_characters(text)))
    text = _TAG.sub(" ", _rendered(_HUGE_NUMBER.sub(" ", _COMMENT.sub(" ", text))))
    return " ".join(_STYLE_RULE.sub(" ", text).split())


def _rendered(text: str) -> str:
    """Return what a browser would show, white space aside."""
    if "<" not in text and "&" not in text:
        return text
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return "".join(reader.shown)


class _Reader(HTMLParser):
    """Collects the text between tags; the standard library's parser is made to be extended so."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.shown: list[str] = []
        self._hidden: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin what isn't shown, or part words."""
        if tag in _HIDDEN:
            self._hidden = tag
        self._part(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Part words; there is nothing inside to hide."""
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        """End what isn't shown, or part words."""
        if tag == self._hidden:
            self._hidden = None
        self._part(tag)

    def handle_data(self, data: str) -> None:
        """Keep text that is shown."""
        if self._hidden is None:
            self.shown.append(data)

    def _part(self, tag: str) -> None:
        if tag not in _INLINE:
            self.shown.append(" ")
