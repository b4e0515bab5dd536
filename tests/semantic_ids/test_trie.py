from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import catalog_of, random_catalog

from peso_cli.data.blocks import read_released
from peso_cli.semantic_ids.trie import build_trie

sid_lists = st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 4)] * n), min_size=1, max_size=40))


def nested(sids):
    """The trie as dicts of dicts; a leaf is the row of the sid."""
    root = {}
    for row, sid in enumerate(sids):
        node = root
        for code in sid[:-1]:
            node = node.setdefault(code, {})
        node[sid[-1]] = row
    return root


def unfold(trie, level=0, node=0):
    """The flat trie in the same form."""
    if level == trie.levels:
        return node
    children = range(trie.offsets[level][node], trie.offsets[level][node + 1])
    return {int(trie.codes[level][child]): unfold(trie, level + 1, child) for child in children}


def depths(node, depth=0):
    """(depth, number of children) of every inner node."""
    if not isinstance(node, dict):
        return []
    return [(depth, len(node))] + [pair for child in node.values() for pair in depths(child, depth + 1)]


@settings(max_examples=60, deadline=None)
@given(sid_lists)
def test_the_trie_is_that_of_nested_dicts(codes):
    sids = catalog_of(codes).sids
    trie = build_trie(sids)
    assert trie.levels == len(codes[0])
    assert unfold(trie) == nested(sids.tolist())


@settings(max_examples=60, deadline=None)
@given(sid_lists)
def test_the_fanout_is_the_most_children_of_a_depth(codes):
    sids = catalog_of(codes).sids
    trie, inner = build_trie(sids), depths(nested(sids.tolist()))
    for level in range(trie.levels):
        assert trie.fanout(level) == max(count for depth, count in inner if depth == level)


@settings(max_examples=60, deadline=None)
@given(sid_lists)
def test_children_are_consecutive_runs_in_ascending_order(codes):
    sids = catalog_of(codes).sids
    trie = build_trie(sids)
    parents = 1
    for codes_of_level, offsets in zip(trie.codes, trie.offsets, strict=True):
        assert (len(offsets), offsets[0], offsets[-1]) == (parents + 1, 0, len(codes_of_level))
        for begin, end in pairwise(offsets):
            assert begin < end
            assert (np.diff(codes_of_level[begin:end]) > 0).all()
        parents = len(codes_of_level)
    assert parents == len(sids)


def test_the_trie_of_real_items_leads_to_every_semantic_id(shared):
    sids = read_released(shared / "data" / "amazon_games", "amazon_games").catalog.sids
    assert unfold(build_trie(sids)) == nested(sids.tolist())


def test_many_items_take_few_bytes_and_every_node_has_just_its_children():
    sids = random_catalog(100_000, (256, 256, 256, 256)).sids
    trie = build_trie(sids)
    nodes = sum(len(codes) for codes in trie.codes)
    assert trie.nbytes == sum(array.nbytes for array in (*trie.codes, *trie.offsets))
    assert trie.nbytes <= 8 * (nodes + trie.levels) <= 24 * len(sids)
    for row in np.random.default_rng(1).integers(0, len(sids), 30).tolist():
        node, below = 0, sids
        for level, code in enumerate(sids[row]):
            children = np.arange(trie.offsets[level][node], trie.offsets[level][node + 1])
            codes = trie.codes[level][children]
            assert codes.tolist() == np.unique(below[:, level]).tolist()
            node, below = int(children[codes == code][0]), below[below[:, level] == code]
        assert node == row


@settings(max_examples=30, deadline=None)
@given(sid_lists)
def test_a_node_costs_eight_bytes(codes):
    trie = build_trie(catalog_of(codes).sids)
    parents = 1 + sum(len(codes) for codes in trie.codes[:-1])
    assert trie.nbytes == 4 * (sum(len(codes) for codes in trie.codes) + parents + trie.levels)
