"""Markup from hostile texts."""

import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peso_cli.reports.model import Cell, Column, Footnote, Gap, Row, Table
from peso_cli.reports.page.html import cleaned, foreign, tag
from peso_cli.reports.page.tables import figures


class Reader(HTMLParser):
    """Notes the elements and the text of a page."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@given(st.text() | st.text(alphabet="<>&\"'/= \x1b[]\u202e\u2067\x00a"))
def test_a_text_comes_back_as_it_is_but_for_what_cannot_be_seen(text):
    element = tag("p", {"title": text}, text)
    reader = Reader(element.markup)
    assert [name for name, _ in reader.elements] == ["p"]
    assert reader.text == cleaned(text)
    assert reader.elements[0][1]["title"] == cleaned(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", element.markup)
    element.markup.encode("utf-8")


@given(st.text())
def test_cleaning_what_is_clean_changes_nothing(text):
    once = cleaned(text)
    assert cleaned(once) == once


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        ("abc\u202efdp.exe", "abcfdp.exe"),
        ("half \ud83d", "half \N{REPLACEMENT CHARACTER}"),
        ("two\n\tlines", "two lines"),
    ],
)
def test_what_is_foreign_is_on_one_line_with_a_direction_of_its_own(hostile, shown):
    assert foreign(hostile).markup == f"<bdi>{shown}</bdi>"


def test_a_text_of_a_megabyte_is_cut_short():
    for filler in ("x", "\x1b[", "\x1b]", "<", "\u202e", " "):
        assert len(foreign(filler * 10**6).markup) < 1000


def test_a_table_has_heads_a_caption_and_marks():
    rows = (Row("a<b>", (Cell(-0.5, 0.1, 2, "best"), Cell(missing="why"))), Row("c", (Cell(1), Cell()), ranked=False))
    notes = (Footnote("told"), *(Footnote(f"missing {n}", Gap("train", (f"stage={n}",))) for n in range(4)))
    table = figures(Table("t & u", "method", (Column("x"), Column("y (paper)")), rows, notes)).markup
    for part in (
        "<caption><bdi>t &amp; u</bdi></caption>",
        '<th scope="col">x</th>',
        '<th scope="row"><bdi>a&lt;b&gt;</bdi></th>',
        "<td><strong>\N{MINUS SIGN}0.5000</strong><small> ± 0.1000</small></td>",
        '<td class="paper"><abbr title="why">\N{EN DASH}</abbr></td>',
        '<tr class="reference">',
        "<summary>4 things are missing; the commands that fill them</summary>",
        '<li>missing 3: <code translate="no">peso train stage=3</code></li>',
    ):
        assert part in table
    assert html.unescape(table).count("<b>") == 1
