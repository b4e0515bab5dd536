import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from populations import PROMPTS, names

from peso_cli.training.trees import ByBlocks, ByRuns, Grove, tree_of

WIDTH = 4
CPU = torch.device("cpu")


@st.composite
def shapes(draw):
    """A sequence's (items, targets): the first target may have no history at all."""
    items = draw(st.integers(0, 7))
    return items, draw(st.integers(1, items + 1))


def examples_of(prompt, items, targets):
    """For each target of a tree, the places in head and tree that its own example holds, in the example's order."""
    head, width, levels = len(prompt.head), prompt.items.shape[1], prompt.answers.shape[1]
    tail = len(prompt.tail)
    for target in range(targets):
        history = head + (items - targets + 1 + target) * width
        begin = history if prompt.chains else head + items * width + target * (tail + levels)
        yield [*range(history), *range(begin, begin + tail + levels)]


@settings(max_examples=80, deadline=None)
@given(names, shapes())
def test_every_token_sees_just_what_it_would_see_in_its_own_example(name, shape):
    prompt = PROMPTS[name]
    tree, met = tree_of(prompt, *shape), set()
    sees = np.concatenate([np.tri(tree.head, tree.head + len(tree), dtype=bool), tree.sees])
    positions = np.concatenate([np.arange(tree.head), tree.positions])
    for places, asked in zip(examples_of(prompt, *shape), tree.answer_at, strict=True):
        assert positions[places].tolist() == list(range(len(places)))
        for order, place in enumerate(places):
            assert set(np.flatnonzero(sees[place])) == set(places[: order + 1])
        levels = prompt.answers.shape[1]
        assert np.where(asked < 0, tree.head - 1, tree.head + asked).tolist() == places[-levels - 1 :]
        met |= set(places)
    assert met == set(range(tree.head + len(tree)))


def test_a_tree_by_hand():
    prompt = PROMPTS["listed"]
    head, width, levels = len(prompt.head), prompt.items.shape[1], prompt.answers.shape[1]
    tree = tree_of(prompt, 1, 2)
    assert (head, width, levels) == (3, 4, 3)
    assert tree.branch.tolist() == [-1, -1, -1, -1, 0, 0, 0, 1, 1, 1]
    assert tree.positions.tolist() == [3, 4, 5, 6, 3, 4, 5, 7, 8, 9]
    assert tree.answer_at.tolist() == [[-1, 4, 5, 6], [3, 7, 8, 9]]
    assert tree.sees.astype(int).tolist() == [
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1],
    ]


def grove_of(name, runs):
    """A grove of runs given as ((items, targets), how many)."""
    return Grove(tuple((tree_of(PROMPTS[name], *shape), count) for shape, count in runs))


def who_sees_whom(grove):
    """(tokens, tokens) of a row, put together tree by tree."""
    head = grove.runs[0][0].head
    trees = [tree for tree, count in grove.runs for _ in range(count)]
    whole = head + sum(len(tree) for tree in trees)
    sees, start = torch.zeros(whole, whole, dtype=torch.bool), head
    sees[:head, :head] = torch.ones(head, head).tril()
    for tree in trees:
        stop, rows = start + len(tree), torch.from_numpy(tree.sees)
        sees[start:stop, :head], sees[start:stop, start:stop] = rows[:, :head], rows[:, head:]
        start = stop
    return sees


def inputs_of(grove, heads, shared):
    """Random (1, heads, tokens, width) queries, and keys and values of which `shared` heads share one."""
    torch.manual_seed(0)
    tokens, groups = len(who_sees_whom(grove)), heads // shared
    return [torch.randn(1, n, tokens, WIDTH, dtype=torch.float64) for n in (heads, groups, groups)]


def plainly(grove, query, key, value, scale):
    """Attention over the whole row, in (1, tokens, heads, width)."""
    key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for x in (key, value))
    scores = (query @ key.mT * scale).masked_fill(~who_sees_whom(grove), -math.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


def gradients(out, inputs):
    """The gradients of a sum in which every number has a weight of its own."""
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape)
    return torch.autograd.grad((out * weights).sum(), inputs)


WAYS = {"runs": ByRuns, "blocks": lambda grove: ByBlocks(grove, CPU)}
EACH = pytest.mark.parametrize("way", sorted(WAYS))
ROW = [((5, 3), 6), ((4, 1), 5), ((0, 1), 3), ((5, 6), 4)]
"""A row of several of FlexAttention's blocks."""
forests = st.lists(st.tuples(shapes(), st.integers(1, 3)), min_size=1, max_size=4)
head_counts = st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3)])


@EACH
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@settings(max_examples=12, deadline=None)
@given(names, forests, head_counts, st.sampled_from([0.3, 0.5]))
@example("instruct", ROW, (4, 2), 0.5)
def test_a_row_attends_tree_by_tree(way, name, runs, heads, scale):
    grove = grove_of(name, runs)
    inputs = inputs_of(grove, *heads)
    assert torch.allclose(WAYS[way](grove)(0, *inputs, scale, 0.0), plainly(grove, *inputs, scale))


@settings(max_examples=20, deadline=None)
@given(names, forests, head_counts)
def test_gradients_flow_tree_by_tree(name, runs, heads):
    grove = grove_of(name, runs)
    inputs = [x.requires_grad_() for x in inputs_of(grove, *heads)]
    found = gradients(ByRuns(grove)(0, *inputs, 0.5, 0.0), inputs)
    expected = gradients(plainly(grove, *inputs, 0.5), inputs)
    assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has gradients on a GPU only")
def test_gradients_flow_block_by_block():
    grove = grove_of("instruct", ROW)
    torch.manual_seed(0)
    tokens = len(who_sees_whom(grove))
    inputs = [torch.randn(1, heads, tokens, 16, device="cuda", requires_grad=True) for heads in (4, 2, 2)]
    found, expected = (
        gradients(w(0, *inputs, 0.25, 0.0), inputs) for w in (grove.attend(inputs[0].device), ByRuns(grove))
    )
    assert all((one - other).norm() <= 1e-2 * other.norm() for one, other in zip(found, expected, strict=True))


@EACH
def test_dropout_follows_from_the_seed_and_keeps_the_mean(way):
    grove = grove_of("asked", [((2, 2), 2), ((1, 1), 1)])
    inputs, found = inputs_of(grove, 2, 2), []
    attend = WAYS[way](grove)
    for seed in (1, *range(1, 300)):
        torch.manual_seed(seed)
        found.append(attend(0, *inputs, 0.5, 0.2))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    assert (torch.stack(found[1:]).mean(0) - attend(0, *inputs, 0.5, 0.0)).abs().max() < 0.15


def test_the_device_says_which_way():
    grove = grove_of("compact", [((2, 1), 1)])
    assert isinstance(grove.attend(CPU), ByRuns)
