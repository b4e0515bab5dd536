import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from semantic_ids.quantized import random_codebooks

from peso_cli.errors import InputError
from peso_cli.semantic_ids.balancing import balanced
from peso_cli.semantic_ids.collisions import nothing_given, resolve
from peso_cli.semantic_ids.reassignment import assigned
from peso_cli.semantic_ids.residual import encode
from peso_cli.semantic_ids.sharing import alike, contested, numbered, shares

KINDS = ("none", "sinkhorn", "reassign", "extra_level")


def world(seed, counts, levels, codes, spread=0.3):
    """Codebooks, and for each stage embeddings that crowd around few places, of which some are equal."""
    rng = np.random.default_rng(seed)
    books = random_codebooks(seed, levels, codes)
    places = rng.normal(size=(2, 3))
    parts = [places[rng.integers(0, 2, n)] + spread * rng.normal(size=(n, 3)) for n in counts]
    whole = np.concatenate(parts).astype(np.float32)
    twins = rng.integers(0, len(whole), len(whole) // 4)
    whole[rng.integers(0, len(whole), len(twins))] = whole[twins]
    return books, whole, np.split(whole, np.cumsum(counts)[:-1])


def staged(kind, books, whole, parts):
    """The semantic IDs that each stage has after each stage was added, and which items are alike."""
    kinds = alike([""] * len(whole), whole)
    begin = nothing_given(kind, books, encode(books, parts[0]))
    grown, done = [begin], 0
    for part in parts:
        own = kinds[done : done + len(part)]
        codes = resolve(kind, books, part, encode(books, part), own, grown[-1])
        grown.append(grown[-1].with_more(codes, own))
        done += len(part)
    return grown[1:], kinds


def lost(books, embeddings, codes):
    total = sum(centers[codes[:, level]].astype(np.float64) for level, centers in enumerate(books.centers))
    return ((embeddings - total) ** 2).sum(axis=1)


stages = st.lists(st.integers(0, 12), min_size=0, max_size=2)
seeds = st.integers(0, 10_000)


@given(seed=seeds, first=st.integers(2, 20), later=stages, levels=st.integers(2, 3))
@settings(max_examples=150, deadline=None)
def test_after_reassign_no_items_of_different_text_share_and_nothing_given_changes(seed, first, later, levels):
    books, whole, parts = world(seed, [first, *later], levels, 8)
    grown, kinds = staged("reassign", books, whole, parts)
    assert not contested(grown[-1].codes, kinds).any()
    assert all((before.codes == grown[-1].codes[: len(before.codes)]).all() for before in grown)
    assert grown[-1].level_sizes == (8,) * levels
    assert ((grown[-1].codes >= 0) & (grown[-1].codes < 8)).all()


@given(seed=seeds, first=st.integers(2, 20), later=stages, kind=st.sampled_from(KINDS[:3]))
@settings(max_examples=80, deadline=None)
def test_items_of_equal_text_go_on_sharing_and_lone_ones_stay(seed, first, later, kind):
    books, whole, parts = world(seed, [first, *later], 2, 8)
    grown, kinds = staged(kind, books, whole, parts)
    codes = grown[-1].codes
    for number in np.unique(kinds):
        assert len(np.unique(codes[kinds == number], axis=0)) == 1
    raw = encode(books, parts[0])
    lone = ~contested(raw, kinds[: len(raw)])
    crowded = np.bincount(numbered(raw[:, :-1])).max() > 8
    assert kind == "sinkhorn" or crowded or (codes[: len(raw)][lone] == raw[lone]).all()


@given(seed=seeds, items=st.integers(2, 24), levels=st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_reassign_costs_no_more_than_giving_each_item_the_nearest_free_code_in_turn(seed, items, levels):
    books, whole, _ = world(seed, [items], levels, 32)
    kinds, raw = alike([""] * items, whole), encode(books, whole)
    codes = resolve("reassign", books, whole, raw, kinds, nothing_given("reassign", books, raw))
    greedy = raw.copy()
    owner = {}
    for row in range(items):
        owner.setdefault(tuple(raw[row]), kinds[row])
    moved = {}
    for row in range(items):
        if owner[tuple(raw[row])] != kinds[row]:
            greedy[row] = moved.get(kinds[row]) or moved.setdefault(
                kinds[row], nearest_free(books, whole[row], raw[row], owner)
            )
            owner[tuple(greedy[row])] = kinds[row]
    assert not contested(greedy, kinds).any()
    assert lost(books, whole, codes).sum() <= lost(books, whole, greedy).sum() * (1 + 1e-9) + 1e-9
    assert len(np.unique(kinds[(codes != raw).any(axis=1)])) == len(moved)


def nearest_free(books, vector, codes, owner):
    rows = np.repeat(codes[None], len(books.centers[-1]), axis=0)
    rows[:, -1] = np.arange(len(rows))
    free = [row for row in rows if tuple(row) not in owner]
    return tuple(free[int(lost(books, np.repeat(vector[None], len(free), axis=0), np.array(free)).argmin())])


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_an_assignment_makes_the_fewest_moves_and_of_those_the_cheapest(data):
    size = data.draw(st.integers(2, 5))
    blocked = data.draw(st.lists(st.integers(0, size - 1), max_size=size - 1, unique=True))
    units = data.draw(st.integers(1, size - len(blocked)))
    current = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=units, max_size=units)), np.int32)
    costs = np.array(data.draw(st.lists(st.integers(0, 5), min_size=units * size, max_size=units * size)), float)
    costs = costs.reshape(units, size)
    found = assigned(costs, current, np.array(blocked, np.int32))

    def price(codes):
        return sum(a != b for a, b in zip(codes, current, strict=True)), costs[range(units), list(codes)].sum()

    allowed = [code for code in range(size) if code not in blocked]
    assert set(found) <= set(allowed)
    assert len(set(found)) == units
    assert price(found.tolist()) == min(price(codes) for codes in itertools.permutations(allowed, units))


def test_reassign_leaves_what_it_was_given_untouched():
    books, whole, _ = world(3, [15], 2, 8)
    raw = encode(books, whole)
    before = raw.copy()
    for kind in KINDS:
        resolve(kind, books, whole, raw, alike([""] * 15, whole), nothing_given(kind, books, raw))
        np.testing.assert_array_equal(raw, before)


def test_what_a_prefix_has_no_room_for_goes_to_the_nearest_last_but_one_code_that_has():
    books = random_codebooks(0, 2, 4)
    rng = np.random.default_rng(0)
    near = books.centers[0][0] + books.centers[1][rng.integers(0, 4, 7)] + 0.01 * rng.normal(size=(7, 3))
    whole = near.astype(np.float32)
    rest = ((whole - books.centers[0][0])[:, None] - books.centers[1]) ** 2
    raw = np.stack([np.zeros(7), rest.sum(axis=2).argmin(axis=1)], axis=1).astype(np.int32)
    codes = resolve("reassign", books, whole, raw, np.arange(7), nothing_given("reassign", books, raw))
    assert not shares(codes).any()
    assert (codes[:, 0] == 0).sum() == 4
    gone = codes[:, 0] != 0
    distances = ((whole[:, None] - books.centers[0]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(codes[gone, 0], 1 + distances[gone, 1:].argmin(axis=1))


def test_more_texts_than_semantic_ids_is_one_line():
    books, whole, _ = world(0, [40], 2, 4)
    raw = encode(books, whole)
    with pytest.raises(InputError, match=r"40 items of different text for 16 semantic IDs; .*extra_level"):
        resolve("reassign", books, whole, raw, np.arange(40), nothing_given("reassign", books, raw))
    one = random_codebooks(0, 1, 4)
    raw = encode(one, whole)
    with pytest.raises(InputError, match="for 4 semantic IDs"):
        resolve("reassign", one, whole, raw, np.arange(40), nothing_given("reassign", one, raw))


def test_the_line_names_what_the_semantic_ids_begin_with():
    books = random_codebooks(0, 3, 2)
    raw = np.array([[1, 0, 0]] * 5, np.int32)
    whole = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    with pytest.raises(InputError, match="5 items of different text for 4 semantic IDs that begin with <a_1>;"):
        resolve("reassign", books, whole, raw, np.arange(5), nothing_given("reassign", books, raw))


@given(seed=seeds, first=st.integers(1, 60), later=stages)
@settings(max_examples=80, deadline=None)
def test_an_extra_level_gives_each_item_a_semantic_id_of_its_own(seed, first, later):
    books, whole, parts = world(seed, [first, *later], 2, 4, spread=0.05)
    grown, _ = staged("extra_level", books, whole, parts)
    assert not shares(grown[-1].codes).any()
    assert all((before.codes == grown[-1].codes[: len(before.codes)]).all() for before in grown)
    np.testing.assert_array_equal(grown[0].codes[:, :-1], encode(books, parts[0]))
    room = grown[-1].level_sizes[-1]
    assert grown[-1].codes[:, -1].max() < room
    most = np.bincount(numbered(grown[0].codes[:, :-1])).max()
    assert room >= max(16, 2 * most)
    assert room.bit_count() == 1


def test_items_that_the_extra_level_has_no_number_for_go_to_the_nearest_last_code_that_has():
    books = random_codebooks(1, 2, 4)
    one = encode(books, np.zeros((1, 3), np.float32))
    given_ids = nothing_given("extra_level", books, one)
    assert given_ids.level_sizes == (4, 4, 16)
    many = np.zeros((40, 3), np.float32)
    codes = resolve("extra_level", books, many, encode(books, many), np.zeros(40, np.int64), given_ids)
    assert not shares(codes).any()
    order = np.argsort(((books.centers[0][one[0, 0]] + books.centers[1]) ** 2).sum(axis=1))
    assert np.bincount(codes[:, 1], minlength=4)[order].tolist() == [16, 16, 8, 0]
    later = resolve(
        "extra_level",
        books,
        many[:24],
        encode(books, many[:24]),
        np.zeros(24, np.int64),
        given_ids.with_more(codes, np.zeros(40, np.int64)),
    )
    assert not shares(np.concatenate([codes, later])).any()
    full = given_ids.with_more(np.concatenate([codes, later]), np.zeros(64, np.int64))
    with pytest.raises(InputError, match="no room for 65 items"):
        resolve("extra_level", books, many[:1], encode(books, many[:1]), np.zeros(1, np.int64), full)


@given(seed=seeds, first=st.integers(2, 20), later=stages)
@settings(max_examples=60, deadline=None)
def test_sinkhorn_never_changes_what_is_given_nor_takes_it_where_a_code_is_free(seed, first, later):
    books, whole, parts = world(seed, [first, *later], 2, 32, spread=0.05)
    grown, kinds = staged("sinkhorn", books, whole, parts)
    assert all((before.codes == grown[-1].codes[: len(before.codes)]).all() for before in grown)
    assert contested(grown[-1].codes, kinds).mean() <= contested(encode(books, whole), kinds).mean()


def test_sinkhorn_resolves_a_crowd_that_has_room():
    books, whole, _ = world(5, [60], 2, 64, spread=0.02)
    raw, kinds = encode(books, whole), alike([""] * 60, whole)
    codes = resolve("sinkhorn", books, whole, raw, kinds, nothing_given("sinkhorn", books, raw))
    assert contested(raw, kinds).mean() > 0.5
    assert contested(codes, kinds).mean() < 0.1
    np.testing.assert_array_equal(codes[:, 0], raw[:, 0])


def test_a_balanced_transport_spreads_items_and_a_lone_item_gets_the_nearest():
    distances = np.array([[0.0, 1.0, 3.0], [0.1, 0.5, 3.0], [0.2, 2.0, 2.5]])
    assert sorted(balanced(distances).tolist()) == [0, 1, 2]
    assert balanced(np.array([[2.0, 1.0, 3.0]])).tolist() == [1]
    assert len(balanced(np.zeros((3, 2)))) == 3


def test_alike_is_equal_text_and_without_text_equal_embedding():
    vectors = np.array([[0], [1], [0], [1], [1]], np.float32)
    assert alike(["x", "x", "", "", ""], vectors).tolist() == [0, 0, 1, 2, 2]


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=20))
def test_rows_are_numbered_in_lexicographic_order(rows):
    array = np.array(rows)
    np.testing.assert_array_equal(numbered(array), np.unique(array, axis=0, return_inverse=True)[1].reshape(-1))


def test_only_groups_that_share_take_time():
    rng = np.random.default_rng(0)
    books = random_codebooks(0, 3, 256, width=8)
    whole = (0.4 * rng.normal(size=(20_000, 8))).astype(np.float32)
    raw = encode(books, whole)
    begun = time.monotonic()
    codes = resolve("reassign", books, whole, raw, np.arange(len(raw)), nothing_given("reassign", books, raw))
    assert time.monotonic() - begun < 10
    assert shares(raw).mean() > 0.05
    assert not shares(codes).any()
