import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from semantic_ids.quantized import random_codebooks

from peso_cli.semantic_ids.catalog import read_catalog
from peso_cli.semantic_ids.quality import Sharing, quality
from peso_cli.semantic_ids.residual import encode, reconstruction_error

CODES = np.array([[0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [1, 1]], np.int32)


def test_who_shares_is_told_with_and_without_those_of_equal_text():
    found = quality(CODES, (2, 2), alike=np.array([0, 0, 1, 2, 2, 3]))
    assert (found.items, found.distinct) == (6, 3)
    assert found.after == Sharing(5 / 6, 3 / 6)
    assert found.before is None
    apart = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 0], [1, 1]], np.int32)
    found = quality(apart, (2, 3), alike=np.array([0, 0, 1, 2, 2, 3]), before=CODES)
    assert (found.before, found.after) == (Sharing(5 / 6, 3 / 6), Sharing(2 / 6, 0.0))


def test_use_and_perplexity_of_each_level():
    found = quality(CODES, (4, 2))
    assert found.used == (2, 2)
    assert found.perplexity[0] == pytest.approx(2.0)
    assert found.perplexity[1] == pytest.approx(3 / 2 ** (2 / 3))
    assert found.level_sizes == (4, 2)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_perplexity_lies_between_one_and_the_codes_used(column):
    found = quality(np.array(column, np.int32)[:, None], (10,))
    assert 1 - 1e-9 <= found.perplexity[0] <= found.used[0] + 1e-9
    assert found.used == (len(set(column)),)


def test_evenly_used_codes_have_a_perplexity_of_their_number():
    found = quality(np.arange(12, dtype=np.int32)[:, None] % 6, (8,))
    assert found.perplexity == pytest.approx((6.0,))


def test_codes_that_tell_the_brand_agree_with_it_and_items_without_one_count_for_nothing():
    brands = ("x", "x", "x", "y", "y", "")
    found = quality(CODES, (2, 2), brands=brands, categories=("",) * 6)
    assert found.brand.first == pytest.approx(1.0)
    assert found.brand.first_two < 1
    assert found.category is None
    assert quality(CODES, (2, 2), brands=("only",) * 6).brand is None
    assert quality(CODES[:, :1], (2,), brands=brands).brand.first_two is None


def test_codes_that_say_nothing_of_the_brand_agree_by_chance_only_and_the_same_way_every_time():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 32, (25_000, 2)).astype(np.int32)
    brands = [f"b{n}" for n in rng.integers(0, 40, 25_000)]
    found = quality(codes, (32, 32), brands=brands)
    assert abs(found.brand.first) < 0.01
    assert found == quality(codes, (32, 32), brands=brands)


def test_the_reconstruction_error_is_that_of_the_final_codes_without_a_further_level():
    books = random_codebooks(0, 2, 8)
    whole = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
    raw = encode(books, whole)
    longer = np.concatenate([raw, np.arange(30, dtype=np.int32)[:, None]], axis=1)
    found = quality(longer, (8, 8, 32), whole, books, before=raw)
    assert found.reconstruction_error == reconstruction_error(books, whole, raw)
    moved = raw.copy()
    moved[:, 1] = (moved[:, 1] + 1) % 8
    assert quality(moved, (8, 8), whole, books).reconstruction_error > found.reconstruction_error
    assert quality(raw, (8, 8)).reconstruction_error is None


def test_a_published_index_is_measured_without_its_codebooks(shared):
    folder = shared / "data" / "office_items"
    catalog = read_catalog(folder / "Office_Products.index.json")
    texts = json.loads((folder / "Office_Products.item.json").read_text())
    brands = [texts[item]["brand"] or "" for item in catalog.items]
    found = quality(catalog.codes, catalog.level_sizes, brands=brands)
    assert found.items == len(catalog.items) == 3459
    assert found.distinct == len(catalog.sids)
    assert 0 < found.brand.first < 1
    json.dumps(dataclasses.asdict(found))
