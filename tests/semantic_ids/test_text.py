import json
import re
import time

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peso_cli.data.sources.frames import ITEM_SCHEMA
from peso_cli.errors import InputError
from peso_cli.semantic_ids.markup import clean, unwrapped
from peso_cli.semantic_ids.text import FIELD_CHARACTERS, FIELDS, field_text, item_texts, read_item_file

STANDARD = "{title}. {brand}. {categories}. {description}"


def frame(*items):
    """A frame of items from (title, brand, categories, description), shorter ones filled with nulls."""
    rows = [(f"i{n}", *item, *[None] * (4 - len(item))) for n, item in enumerate(items)]
    return pl.DataFrame(rows, schema=["item", *FIELDS], orient="row", schema_overrides=ITEM_SCHEMA)


def text_of(*item, template=STANDARD):
    return item_texts(frame(item), template).texts[0]


def refusal(template):
    with pytest.raises(InputError) as caught:
        item_texts(frame(("a",)), template)
    assert "\n" not in str(caught.value)
    return str(caught.value)


CLEAN = {
    "Glue Dots N&#39; Go&reg; 10&nbsp;pack": "Glue Dots N' Go® 10 pack",
    "Papers &amp;amp; Co": "Papers & Co",
    "&lt;b&gt;bold&lt;/b&gt; move": "bold move",
    "one<br>two<br/>three<p>four</p>five": "one two three four five",
    "H<sub>2</sub>O Marks-A-Lot<sup></sup> x": "H2O Marks-A-Lot x",
    "seen <!-- .headerM {color:#000} a > b --> again": "seen again",
    "seen <!-- never closed": "seen",
    "a<script>if (x < 3) alert('<b>')</script>b<style>p {color: red}</style>c": "a b c",
    "anywhere. .caption { font-size: 10px; } ul.indent { list-style: disc; } h5 {a:b} The iP100": "anywhere. The iP100",
    "<!DOCTYPE html><?xml version='1'?><![CDATA[x]]><![foo[ y ]]>z": "z",
    "less <2W, 5 < 6 > 4, x<y <3": "less <2W, 5 < 6 > 4, x<y <3",
    "set {1, 2} & {a}": "set {1, 2} & {a}",
    "popular programs. Br><br": "popular programs. Br>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07plain\x1b": "red plain",
    "a\x00b\x07c\u200bd\u202ee": "abcde",
    "tab\tnew\r\nline\u2028 \u00a0end ": "tab new line end",
    "&#" + "9" * 5000 + ";x &#x110000; y": "x \ufffd y",
    "\ud83d\ude00 \ud83d lone": "😀 lone",
    "": "",
}


@pytest.mark.parametrize("dirty", CLEAN)
def test_what_shops_store_becomes_plain_text(dirty):
    assert clean(dirty) == CLEAN[dirty]


MARKUP = r"""
< > <b> </b <!-- --> <style> </style> <script &amp; &lt; &gt; &#38; &#60; lt; { a{b: } /* */ ' " = [ m ]]> <![ <?
&#27; &shy; \ word p.x <a_href=' <textarea> <br ['a', 'b']
"""
STRANGE = (" ", "\n", "\x1b", "\x1b[", "\x00", "\u200b", "\ud83d", "\x85", "\x1c", "<a href='")
FRAGMENTS = st.sampled_from((*MARKUP.split(), *STRANGE))


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(st.characters(codec=None)), st.lists(FRAGMENTS, max_size=40).map("".join)))
@example("&amp;" * 30 + "lt;b>")
@example("&" + "amp;" * 30 + "lt;b&gt;")
def test_any_text_loses_markup_and_control_characters_and_stays_as_it_is_after_that(text):
    once = clean(text)
    assert clean(once) == once
    assert not any(re.match(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", character) for character in once)
    assert not re.search(r"<[A-Za-z/!?][^<>]*>", once)
    assert "<!--" not in once
    assert once == " ".join(once.split())
    once.encode()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]))))
def test_a_list_printed_by_python_or_as_json_gives_its_strings(strings):
    assert unwrapped(json.dumps(strings, ensure_ascii=False)) == strings
    if all(string.isprintable() for string in strings):  # Python writes the others as \x, \u or \U
        assert unwrapped(str(strings)) == strings


@settings(max_examples=200, deadline=None)
@given(st.lists(FRAGMENTS, max_size=20).map("".join))
def test_what_is_no_list_of_strings_stays_text(text):
    for form in (f"[{text}", f"{text}]", f"[4 {text}]", f"['{text}' x]"):
        field_text(form)
    assert unwrapped(f"[4 {text}]") == [f"[4 {text}]"]


def test_printed_lists_of_amazon_are_unwrapped():
    assert field_text("""["It's 3\\" wide.", 'Sold\\nby \\u00e9', '']""") == "It's 3\" wide. Sold by é"
    assert field_text("['', '']") == ""
    assert field_text("[4 Rolls, 1400 Labels] Address") == "[4 Rolls, 1400 Labels] Address"
    assert text_of("T", None, "['Office', 'Paper']") == "T. Office, Paper"
    assert field_text("['It's the \\n best', 'of's all']") == "It's the best of's all"
    assert field_text("['<!-- a', 'b --> c']") == "c"


BLANKS = (None, "", " ", "['']")


@pytest.mark.parametrize("values", [[bool(n >> bit & 1) for bit in range(4)] for n in range(16)])
def test_what_is_empty_leaves_no_trace(values):
    words = dict(zip(FIELDS, ("Pen", "Pilot", "Office", "It writes"), strict=True))
    item = [words[field] if there else blank for field, there, blank in zip(FIELDS, values, BLANKS, strict=True)]
    assert text_of(*item) == ". ".join(words[field] for field, there in zip(FIELDS, values, strict=True) if there)


@pytest.mark.parametrize(
    ("template", "item", "text"),
    [
        ("{title} ({brand}), {categories}", ("Pen", None, "Office"), "Pen, Office"),
        ("{title} ({brand}), {categories}", ("Pen", "Pilot", "Office"), "Pen (Pilot), Office"),
        ("{title} ({brand}), {categories}", (None, "Pilot", "Office"), "(Pilot), Office"),
        ("Title: {title}. Brand: {brand}.", ("Pen",), "Title: Pen"),
        ("Title: {title}. Brand: {brand}.", (None, "Pilot"), "Brand: Pilot."),
        ('"{title}" by {brand}', ("Pen", "Pilot"), '"Pen" by Pilot'),
        ("{{{title}}} {brand}", ("Pen", "Pilot"), "{Pen} Pilot"),
        ("{title}. {brand}. {categories}", ("Pens!", "A &amp; B, Inc.", "Office"), "Pens! A & B, Inc. Office"),
        ("{brand} {title} {brand}", ("Pen", "Pilot"), "Pilot Pen Pilot"),
    ],
)
def test_text_around_a_field_goes_with_it(template, item, text):
    assert text_of(*item, template=template) == text


def test_a_template_that_cannot_be_filled_is_refused():
    assert "{titel} (did you mean title?)" in refusal("{titel}. {brand}")
    assert "{}" in refusal("{}")
    assert "{title.x}" in refusal("{title.x}")
    assert "alone in its braces" in refusal("{title:10}")
    assert "alone in its braces" in refusal("{title!r}")
    assert "can't be read" in refusal("{title")
    assert "names no field" in refusal("the same for all")


def test_items_without_text_and_equal_texts_are_counted():
    texts = item_texts(frame(("Pen",), ("Ink", "x"), (" Pen ",), ("<br>", None, None, "['']"), ()), STANDARD)
    assert texts.texts == ("Pen", "Ink. x", "Pen", "", "")
    assert (texts.without, texts.repeated, texts.cut) == (2, 1, 0)
    assert texts.summary == "texts of 5 items: 2 without text, 1 with the text of another"


def test_a_title_of_a_megabyte_does_no_harm():
    begun = time.monotonic()
    long = ["word " * 200_000, "<b" * 500_000, "['" + "x" * 1_000_000 + "']", "&amp;" * 200_000, "[" * 1_000_000]
    texts = item_texts(frame(*[(title,) for title in long], ("Pen",)), "{title}")
    assert time.monotonic() - begun < 6
    assert max(map(len, texts.texts)) <= FIELD_CHARACTERS
    assert texts.texts[2] == "x" * FIELD_CHARACTERS
    assert texts.cut == 5
    assert f"5 with a field cut to {FIELD_CHARACTERS} characters" in texts.summary


def test_an_item_file_is_read_with_what_it_lacks(tmp_path):
    path = tmp_path / "toy.item.json"
    path.write_text('{"7": {"title": "\\ud83d\\ude00 \\ud83d", "price": 3}, "2": {"brand": null, "description": "d"}}')
    items = read_item_file(path)
    assert items.schema == ITEM_SCHEMA
    assert items.rows() == [("7", "😀 ", None, None, None), ("2", None, "d", None, None)]
    path.write_text("{}")
    assert read_item_file(path).schema == ITEM_SCHEMA


@pytest.mark.parametrize(
    ("content", "word"),
    [('{"7": {"brand": 3}}', "int as its brand"), ('{"7": "x"}', "'7' needs an object"), ("{", ":1:")],
)
def test_a_broken_item_file_is_refused_with_the_place(tmp_path, content, word):
    path = tmp_path / "toy.item.json"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(word)) as caught:
        read_item_file(path)
    assert str(caught.value).startswith(str(path))


def test_real_office_items_come_out_clean(shared):
    items = read_item_file(shared / "data/office_items/Office_Products.item.json")
    texts = item_texts(items, STANDARD)
    assert len(texts.texts) == 3459
    assert (texts.without, texts.cut) == (0, 0)
    for word in ("&amp;", "&ndash;", "font-family", "<!--", "<br", "['", "\\n"):
        assert not any(word in text for text in texts.texts), word
    assert not any(". . " in text[:100] for text in texts.texts)
