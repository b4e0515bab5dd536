"""One text for each item, by a template, from what is known of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from peso_cli.data.reading import read_object
from peso_cli.errors import InputError, nearest
from peso_cli.semantic_ids.markup import clean, unwrapped, whole_characters

if TYPE_CHECKING:
    import polars as pl

FIELDS: Final = ("title", "brand", "categories", "description")
"""What a template may name."""

FIELD_CHARACTERS: Final = 20_000
"""A field's characters beyond these are left unread: no encoder gets that far, and no text can hold up the others."""

_BETWEEN = re.compile(r"([)\]}>»\u201d\u2019\"']*)([^\w(\[{<«\u201c\u2018\"']*)(.*)", re.DOTALL)
"""Text between two fields: what closes the one before, what parts the two, what opens or labels the one after."""

_SENTENCE_ENDS = (".", "!", "?", "…")


@dataclass(frozen=True)
class ItemTexts:
    """The texts of items, and what there is to say about them.

    Attributes:
        texts: one for each item, empty where the item has none.
        cut: how many items have a field that was longer than FIELD_CHARACTERS.
    """

    texts: tuple[str, ...]
    cut: int

    @property
    def without(self) -> int:
        """How many items have no text."""
        return self.texts.count("")

    @property
    def repeated(self) -> int:
        """How many items have the text of an item before them."""
        return len(self.texts) - self.without - len(set(self.texts) - {""})

    @property
    def summary(self) -> str:
        """The figures in words."""
        cut = f", {self.cut} with a field cut to {FIELD_CHARACTERS} characters" if self.cut else ""
        figures = f"{self.without} without text, {self.repeated} with the text of another{cut}"
        return f"texts of {len(self.texts)} items: {figures}"


@dataclass(frozen=True)
class _Place:
    """A field in a template, with the text around it, which is shown only together with the field.

    Attributes:
        field: what stands here.
        parting: what parts it from a field that is shown before it.
        opening: what comes right before it.
        closing: what comes right after it.
    """

    field: str
    parting: str
    opening: str
    closing: str


def item_texts(items: pl.DataFrame, template: str) -> ItemTexts:
    """Make the text of each item.

    Args:
        items: columns of ITEM_SCHEMA; a field may be HTML or a printed list, and null where there is nothing.
        template: text with {title}, {brand}, {categories} and {description}. What stands around a field goes with it:
            a field that is empty leaves no trace.

    Raises:
        InputError: the template names an unknown field or none, or can't be read.
    """
    places = _parsed(template)
    columns = [items[place.field].to_list() for place in places]
    texts = tuple(_joined(places, values) for values in zip(*columns, strict=True))
    cut = sum(any(value and len(value) > FIELD_CHARACTERS for value in values) for values in zip(*columns, strict=True))
    return ItemTexts(texts, cut)


def field_text(value: str | None, parting: str = " ") -> str:
    """Return the plain text of one field of an item; a printed list's strings are joined by `parting`."""
    if not value:
        return ""
    pieces = unwrapped(value)
    return clean((value if pieces == [value] else parting.join(filter(None, pieces)))[:FIELD_CHARACTERS])


def read_item_file(path: Path) -> pl.DataFrame:
    """Read a released NAME.item.json into columns of ITEM_SCHEMA, in the order of the file.

    Raises:
        InputError: the file is missing or broken, or a field of an item is neither text nor null.
    """
    import polars as pl

    from peso_cli.data.sources.frames import ITEM_SCHEMA

    rows = [[item, *_fields(path, item, record)] for item, record in read_object(path).items()]
    return pl.DataFrame(rows, schema=["item", *FIELDS], orient="row", schema_overrides=ITEM_SCHEMA).select(*ITEM_SCHEMA)


def _fields(path: Path, item: str, record: Any) -> list[str | None]:
    if not isinstance(record, dict):
        raise InputError(f"{path}: item {item!r} needs an object such as {{'title': …}}")
    for field in FIELDS:
        if not isinstance(value := record.get(field), str | None):
            raise InputError(f"{path}: item {item!r} has a {type(value).__name__} as its {field}; give text or null")
    return [None if (value := record.get(field)) is None else whole_characters(value) for field in FIELDS]


def _joined(places: Sequence[_Place], values: Sequence[str | None]) -> str:
    text = ""
    for place, value in zip(places, values, strict=True):
        if shown := field_text(value, ", " if place.field == "categories" else " "):
            # A title that ends with a full stop needs no second one.
            ended = text.endswith(_SENTENCE_ENDS)
            parting = place.parting.lstrip(".") if ended else place.parting
            text += (parting if text else "") + place.opening + shown + place.closing
    return text


def _parsed(template: str) -> list[_Place]:
    """Split a template into its fields with the text around each."""
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"tokenizer.text={template}: can't be read ({error}); braces go around a field") from None
    for _, field, form, conversion in pieces:
        if form or conversion:
            raise InputError(f"tokenizer.text={template}: a field stands alone in its braces, such as {{{FIELDS[0]}}}")
        if field is not None and field not in FIELDS:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise InputError(
                f"tokenizer.text: no field is named {{{field}}}{nearest(field, FIELDS)}; there are {known}"
            )
    if all(field is None for _, field, _, _ in pieces):
        raise InputError(f"tokenizer.text={template}: names no field of an item, such as {{title}}")
    return _placed(pieces)


def _placed(pieces: Sequence[tuple[str, str | None, str | None, str | None]]) -> list[_Place]:
    texts, fields = _texts_and_fields(pieces)
    between = [match.groups() for text in texts[1:-1] if (match := _BETWEEN.fullmatch(text))]
    openings = [("", texts[0]), *((parting, opening) for _, parting, opening in between)]
    closings = [*(closing for closing, _, _ in between), texts[-1]]
    return [
        _Place(field, parting, opening, closing)
        for field, (parting, opening), closing in zip(fields, openings, closings, strict=True)
    ]


def _texts_and_fields(pieces: Sequence[tuple[str, str | None, str | None, str | None]]) -> tuple[list[str], list[str]]:
    """Return the fields, and the text before, between and behind them; doubled braces come as pieces of text."""
    texts, fields = [""], []
    for text, field, _, _ in pieces:
        texts[-1] += text
        if field is not None:
            fields.append(field)
            texts.append("")
    return texts, fields
