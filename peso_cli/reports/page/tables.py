"""Tables as HTML: heads that say of what they are, a box of their own to scroll in, notes below."""

from __future__ import annotations

from collections.abc import Sequence

from peso_cli.reports.model import Cell, Column, Footnote, Row, Table
from peso_cli.reports.page.html import Html, Piece, code, folded, foreign, joined, tag
from peso_cli.reports.render import DASH

_MARKS = {"best": "strong", "second": "u"}

_PUBLISHED = " (paper)"

_FEW = 3
"""Notes with commands that stand below a table; more of them are folded."""


def grid(caption: str, heads: Sequence[Piece], rows: Sequence[Sequence[Piece]], look: str = "texts") -> Html:
    """Return a table of anything.

    Args:
        caption: what it is of.
        heads: of the columns; the first one is that of the rows' heads.
        rows: a head and a cell for each of the other columns.
        look: the class of the table: `texts` or `figures`.
    """
    body = [tag("tr", {}, _row_head(head), *(tag("td", {}, cell) for cell in cells)) for head, *cells in rows]
    return _table(caption, [(head, "") for head in heads], body, look)


def figures(table: Table) -> Html:
    """Return a table of figures with its footnotes; the best figure of a column is bold, the second underlined."""
    looks = ["paper" if column.name.endswith(_PUBLISHED) else "" for column in table.columns]
    heads = [(table.head, ""), *((column.name, look) for column, look in zip(table.columns, looks, strict=True))]
    body = [_row(row, table.columns, looks) for row in table.rows]
    return joined([_table(table.title, heads, body, "figures"), *_notes(table.footnotes)])


def _table(caption: str, heads: Sequence[tuple[Piece, str]], body: Sequence[Html], look: str) -> Html:
    row = (tag("th", {"scope": "col", **_class(look)}, head) for head, look in heads)
    head = tag("thead", {}, tag("tr", {}, *row))
    table = tag("table", {"class": look}, tag("caption", {}, foreign(caption)), head, tag("tbody", {}, *body))
    # A box that scrolls must be within reach of the keyboard.
    return tag("div", {"class": "scroll", "role": "region", "aria-label": caption, "tabindex": "0"}, table)


def _row_head(head: Piece) -> Html:
    return tag("th", {"scope": "row"}, head)


def _row(row: Row, columns: Sequence[Column], looks: Sequence[str]) -> Html:
    cells = (_cell(*of) for of in zip(row.cells, columns, looks, strict=True))
    return tag("tr", {} if row.ranked else {"class": "reference"}, _row_head(foreign(row.name)), *cells)


def _cell(cell: Cell, column: Column, look: str) -> Html:
    if cell.mean is None:
        dash = tag("abbr", {"title": cell.missing}, DASH) if cell.missing else DASH
        return tag("td", _class(look), dash)
    mean = format(cell.mean, column.form).replace("-", "\N{MINUS SIGN}")
    shown = tag(_MARKS[cell.mark], {}, mean) if cell.mark else mean
    spread = "" if cell.std is None else tag("small", {}, f" ± {cell.std:{column.form.lstrip('+')}}")
    return tag("td", _class(look), shown, spread)


def _class(look: str) -> dict[str, str]:
    return {"class": look} if look else {}


def _notes(notes: Sequence[Footnote]) -> list[Html]:
    """Return notes as a list; those that tell of something missing come last, folded where they are many."""
    told = [note for note in notes if not note.command]
    lacking = [note for note in notes if note.command]
    if len(lacking) <= _FEW:
        return [_listed([*told, *lacking])] if notes else []
    fill = folded(f"{len(lacking)} things are missing; the commands that fill them", _listed(lacking))
    return [*([_listed(told)] if told else []), fill]


def _listed(notes: Sequence[Footnote]) -> Html:
    return tag("ul", {"class": "notes"}, *(tag("li", {}, *_note(note)) for note in notes))


def _note(note: Footnote) -> tuple[Piece, ...]:
    return (f"{note.text}: ", code(note.command)) if note.command else (note.text,)
