from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from populations import PROMPTS, names, populations, random_block
from worlds import block_of

from peso_cli.data.examples import examples
from peso_cli.training.layouts import Packed, Padded
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import one_by_one, shared

KINDS = {"packed": (Packed, shared), "padded": (Padded, one_by_one)}
EACH = pytest.mark.parametrize("kind", sorted(KINDS))
budgets, kinds = st.integers(1, 400), st.sampled_from(sorted(KINDS))


def packer_of(blocks, budget, kind="packed", name="compact"):
    """A packer over the training examples of blocks."""
    layout, grouped = KINDS[kind]
    return Packer(tuple(grouped(examples(block, "train", 5)) for block in blocks), layout(PROMPTS[name]), budget)


def lengths_in(packer, plan):
    """The length of each sequence of a plan, batch by batch."""
    lengths = [packer.layout.lengths(source) for source in packer.sources]
    return [[int(lengths[source][row]) for source, row in members] for members in plan]


@settings(max_examples=80, deadline=None)
@given(st.lists(populations, min_size=1, max_size=3), budgets, kinds, names, st.none() | st.tuples(st.integers(0, 99)))
def test_a_plan_holds_every_sequence_once_within_the_budget(blocks, budget, kind, name, seed):
    packer = packer_of([block_of(users) for users in blocks], budget, kind, name)
    plan = packer.plan(seed)
    everything = [(source, row) for source, sequences in enumerate(packer.sources) for row in range(len(sequences))]
    assert sorted(member for members in plan for member in members) == everything
    for members, lengths in zip(plan, lengths_in(packer, plan), strict=True):
        batch = packer.batch(members)
        assert batch.tokens.size == packer.layout.size(np.array(lengths))
        assert batch.tokens.size <= budget or len(members) == 1
        assert batch.mass == len(batch.labels) == len(batch.at)


@settings(max_examples=40, deadline=None)
@given(st.lists(populations, min_size=1, max_size=3), budgets, kinds)
def test_no_batch_could_have_taken_the_next_sequence_too(blocks, budget, kind):
    packer = packer_of([block_of(users) for users in blocks], budget, kind)
    for lengths, following in pairwise(lengths_in(packer, packer.plan(None))):
        assert packer.layout.size(np.array([*lengths, following[0]])) > budget


@settings(max_examples=40, deadline=None)
@given(populations, budgets, kinds, st.integers(0, 99), st.integers(0, 99))
def test_a_plan_follows_from_the_seed(users, budget, kind, seed, epoch):
    one, other = (packer_of([block_of(users)], budget, kind) for _ in range(2))
    assert one.plan((seed, epoch)) == other.plan((seed, epoch))
    assert one.plan(None) == other.plan(None)


@EACH
def test_epochs_differ_in_order_and_in_mixture(kind):
    packer = packer_of([random_block(60)], 100, kind)
    first, second, other = packer.plan((3, 0)), packer.plan((3, 1)), packer.plan((4, 0))
    assert first != second != other != first
    assert {frozenset(members) for members in first} != {frozenset(members) for members in second}


@EACH
def test_long_and_short_batches_come_in_any_order(kind):
    packer = packer_of([random_block(60, events=8)], 75 if kind == "packed" else 90, kind)
    means = [np.mean(lengths) for lengths in lengths_in(packer, packer.plan((3, 0)))]
    assert 20 < len(means) < 32  # as many as are sorted at once
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


@EACH
def test_without_a_seed_batches_go_by_length(kind):
    packer = packer_of([random_block(30)], 100, kind)
    order = [length for lengths in lengths_in(packer, packer.plan(None)) for length in lengths]
    assert order == sorted(order)
    assert len(set(order)) > 3


@EACH
def test_the_blocks_of_a_memory_mix(kind):
    packer = packer_of([random_block(40, 0), random_block(40, 1)], 200, kind)
    plan = packer.plan((0, 0))
    assert sum(len({source for source, _ in members}) == 2 for members in plan) > len(plan) / 2


@EACH
def test_a_batch_of_several_blocks_gives_each_label_the_weight_of_its_own(kind):
    packer = packer_of([random_block(40, 0), random_block(40, 1)], 200, kind)
    light, heavy = packer.sources
    packer = replace(packer, sources=(replace(light, weight=0.25), heavy))
    for members in packer.plan((0, 0)):
        batch, answered = packer.batch(members), [0, 0]
        for source, row in members:
            answered[source] += 4 * int(packer.sources[source].targets[row])
        assert batch.mass == 0.25 * answered[0] + answered[1]
        if answered[0]:
            assert [int((batch.weights == weight).sum()) for weight in (0.25, 1.0)] == answered
        else:
            assert batch.weights is None


def test_little_is_padding_where_pools_are_large():
    packer = packer_of([random_block(400)], 200, "padded")
    padded = sum(packer.batch(members).tokens.size for members in packer.plan((0, 0)))
    assert packer.layout.lengths(packer.sources[0]).sum() > 0.85 * padded


@pytest.mark.parametrize("name", ["compact", "instruct"])
def test_packed_batches_are_full(name):
    packer = packer_of([random_block(400)], 2000, "packed", name)
    plan = packer.plan((0, 0))
    assert sum(packer.batch(members).tokens.size for members in plan) > 0.9 * 2000 * len(plan)
    assert packer.fill > 0.9


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_packed_rows_hold_far_fewer_tokens_than_padded_ones(name):
    block = random_block(100, events=8)
    packed, padded = (packer_of([block], 500, kind, name) for kind in ("packed", "padded"))
    sizes = [sum(p.batch(members).tokens.size for members in p.plan(None)) for p in (packed, padded)]
    assert sizes[0] < 0.75 * sizes[1]


@settings(max_examples=40, deadline=None)
@given(populations, budgets, kinds)
def test_the_fill_is_a_share(users, budget, kind):
    assert 0 < packer_of([block_of(users)], budget, kind).fill <= 1
