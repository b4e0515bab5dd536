import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import catalog_of

from peso_cli.errors import InputError
from peso_cli.semantic_ids.catalog import read_catalog, token_text

MALFORMED = [
    "<b_>",
    "<b_1",
    "b_1",
    "<b_1>.",
    "<b_-1>",
    "<b_1.5>",
    "<b_x>",
    "<b_01>",
    "<b_٣>",
    "<a_1>",
    "<B_1>",
    "<b_1234567>",
]
GOOD = {"10": ["<a_3>", "<b_0>"], "2": ["<a_0>", "<b_12>"], "7": ["<a_3>", "<b_0>"]}


@pytest.fixture
def index(tmp_path):
    """Write an index file (JSON-able, or text) and return its path."""

    def write(value):
        path = tmp_path / "toy.index.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return write


def refusal(path, texts=None, named=None):
    with pytest.raises(InputError) as caught:
        read_catalog(path, texts)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(named or path))
    return message


def test_an_index_is_read_in_the_order_of_the_file(index):
    catalog = read_catalog(index(GOOD))
    assert catalog.items == ("10", "2", "7")
    assert catalog.codes.tolist() == [[3, 0], [0, 12], [3, 0]]
    assert catalog.codes.dtype == np.int32
    assert (catalog.levels, catalog.level_sizes) == (2, (4, 13))
    assert catalog.position == {"10": 0, "2": 1, "7": 2}
    assert catalog.titles == {}


def test_items_that_share_a_semantic_id_are_grouped(index):
    catalog = read_catalog(index(GOOD))
    assert catalog.sids.tolist() == [[0, 12], [3, 0]]
    assert catalog.sid_of.tolist() == [1, 0, 1]
    assert catalog.sid_sizes.tolist() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 3)] * n), min_size=1, max_size=30)))
def test_the_grouping_is_sorted_distinct_and_leads_back_to_every_item(codes):
    catalog = catalog_of(codes)
    assert list(map(tuple, catalog.sids.tolist())) == sorted(set(codes))
    assert catalog.sids[catalog.sid_of].tolist() == catalog.codes.tolist()
    assert catalog.sid_sizes.sum() == len(codes)


SIZES = {
    "as many as a number holds": (2**31 - 1, 2**31 - 1, 2),
    "one more": (2**31 - 1, 2**31 - 1, 3),
    "levels of one code": (1, 7, 1, 1),
    "one level": (500,),
    "many small levels": (3,) * 20,
    "more levels than a number holds": (10,) * 20,
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(1, 30))
def test_the_grouping_is_that_of_sorted_rows_however_large_codes_are(sizes, seed, copies, different):
    rng = np.random.default_rng(seed)
    few = rng.integers(0, sizes, (different, len(sizes)))
    last = np.array(sizes) - 1
    codes = np.concatenate([few, few[rng.integers(0, different, copies)], [last, 0 * last]]).astype(np.int32)
    catalog = catalog_of(rng.permutation(codes))
    sids, group = np.unique(catalog.codes, axis=0, return_inverse=True)
    assert catalog.level_sizes == sizes
    assert np.array_equal(catalog.sids, sids)
    assert np.array_equal(catalog.sid_of, group.reshape(-1))
    assert (catalog.sids.dtype, catalog.sid_of.dtype) == (np.int32, np.int64)


def test_grouping_takes_a_fraction_of_sorting_rows():
    catalog, seconds = catalog_of(np.random.default_rng(0).integers(0, 256, (200_000, 4))), []
    for group in (lambda: np.unique(catalog.codes, axis=0, return_inverse=True), lambda: catalog.sids):
        begun = time.process_time()
        group()
        seconds.append(time.process_time() - begun)
    assert seconds[1] < seconds[0] / 2


def test_the_digest_tells_items_and_codes_apart(index):
    digests = {
        read_catalog(index(value)).digest
        for value in (
            GOOD,
            GOOD | {"2": ["<a_0>", "<b_11>"]},
            {("11" if item == "10" else item): sid for item, sid in GOOD.items()},
            dict(reversed(GOOD.items())),
        )
    }
    assert len(digests) == 4
    assert read_catalog(index(GOOD)).digest in digests


def test_real_indices_are_read_right(shared):
    for folder, items, distinct, levels in (
        ("amazon_games", 25_935, 25_707, 4),
        ("amazon_instruments", 53_509, None, 4),
        ("office_items", 3_459, 3_444, 3),
    ):
        (path,) = (shared / "data" / folder).glob("*.index*.json")
        catalog = read_catalog(path)
        assert (len(catalog.items), catalog.levels) == (items, levels)
        assert len(catalog.sids) == (distinct or len(catalog.sids))
        for item, tokens in list(json.loads(path.read_text()).items())[:: items // 50]:
            row = catalog.codes[catalog.position[item]]
            assert [token_text(level, code) for level, code in enumerate(row)] == tokens


def test_real_titles_are_read(shared):
    folder = shared / "data" / "office_items"
    texts = folder / "Office_Products.item.json"
    catalog = read_catalog(folder / "Office_Products.index.json", texts)
    raw = json.loads(texts.read_text())
    assert set(catalog.titles) == {item for item, text in raw.items() if text["title"].strip()}
    assert all(title == " ".join(raw[item]["title"].split()) for item, title in catalog.titles.items())


def test_an_index_without_items_is_refused(index):
    assert "holds no item" in refusal(index({}))


def test_a_list_of_items_is_refused(index):
    assert "where one JSON object is needed" in refusal(index([["<a_1>"]]))


def test_a_broken_index_is_placed(index):
    path = index(json.dumps(GOOD)[:20])
    assert refusal(path).startswith(f"{path}:1:")


def test_an_item_given_twice_is_named(index):
    assert "key '2' occurs twice" in refusal(index('{"2": ["<a_1>"], "2": ["<a_1>"]}'))


@pytest.mark.parametrize("at", ["10", "7"])
@pytest.mark.parametrize("sid", [[], None, 5, True, "<a_1>", {"a": 1}, {}])
def test_an_item_without_a_list_of_tokens_is_named(index, at, sid):
    assert f"item '{at}' has no semantic ID" in refusal(index(GOOD | {at: sid}))


@pytest.mark.parametrize("sid", [["<a_1>"], ["<a_1>", "<b_1>", "<c_1>"]])
def test_an_item_of_another_length_is_named(index, sid):
    assert f"item '7' has {len(sid)} levels, the first item has 2" in refusal(index(GOOD | {"7": sid}))


@pytest.mark.parametrize("token", [*MALFORMED, "", 3, None, ["<b_1>"]])
def test_a_malformed_token_is_named_with_item_and_level(index, token):
    message = refusal(index(GOOD | {"2": ["<a_1>", token]}))
    assert f"item '2' has {token!r} at level 2" in message
    assert "'<b_0>'" in message


def test_titles_are_taken_where_there_are_any(index, tmp_path):
    texts = tmp_path / "toy.item.json"
    texts.write_text(json.dumps({"10": {"title": "  A\n  title "}, "2": {"title": " "}, "7": {"brand": "x"}}))
    assert read_catalog(index(GOOD), texts).titles == {"10": "A title"}
    texts.write_text(json.dumps({"10": {"title": None}}))
    assert read_catalog(index(GOOD), texts).titles == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"10": ["A title"]}, "item '10' needs an object"),
        ({"10": "A title"}, "item '10' needs an object"),
        ({"10": {"title": 3}}, "item '10' has 3 as its title"),
        ({"10": {"title": ["a\nb"]}}, "item '10' has ['a\\nb'] as its title"),
        ([], "where one JSON object is needed"),
    ],
)
def test_texts_of_a_wrong_type_are_named(index, tmp_path, value, said):
    texts = tmp_path / "toy.item.json"
    texts.write_text(json.dumps(value))
    assert said in refusal(index(GOOD), texts, named=texts)


SHARED = [[0, 0], [1, 2], [0, 0], [3, 1]]


def test_items_that_are_not_visible_have_no_place_among_the_semantic_ids():
    whole = catalog_of(SHARED)
    part = whole.seen(np.array([False, True, True, False]))
    assert part.sids.tolist() == [[0, 0], [1, 2]]
    assert part.sid_of.tolist() == [-1, 1, 0, -1]
    assert part.sid_sizes.tolist() == [1, 1]
    assert part.first_items.tolist() == [2, 1]
    assert part.level_sizes == whole.level_sizes
    assert part.items == whole.items


def test_a_catalogs_digest_is_that_of_its_visible_items():
    whole, longer = catalog_of(SHARED), catalog_of([*SHARED, [2, 2]])
    assert longer.seen(np.array([True] * 4 + [False])).digest == whole.digest != longer.digest
    assert whole.seen(np.array([True, True, False, True])).digest != whole.digest
    assert replace(whole, sizes=(8, 8)).digest != whole.digest


def test_declared_sizes_count_more_than_the_codes_in_use():
    declared = replace(catalog_of(SHARED), sizes=(8, 16))
    assert declared.level_sizes == (8, 16)
    assert declared.sids.tolist() == catalog_of(SHARED).sids.tolist()
    assert declared.sid_of.tolist() == [0, 1, 0, 2]
