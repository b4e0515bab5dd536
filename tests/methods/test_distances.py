"""Distances of vectors to their anchors, against their definitions in more than float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.choosing import chosen, gradients, moved, penalty_of, random_factors

from peso_cli.methods import distances, divergences
from peso_cli.methods.anchored import measured
from peso_cli.methods.vectors import members_of, vectors_of

VECTORS = [
    chosen(name, **changes)
    for name, changes in (
        ("softmax_kl", {}),
        ("softmax_kl", {"smoothing": 1e-8}),
        ("softmax_kl", {"group": "layer"}),
        ("rank_kl", {}),
        ("quadratic", {}),
        ("l2", {}),
        ("l2", {"unsquared": True}),
    )
]
"""Those that are least at the anchor."""

vectors = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-30, 30), min_size=n, max_size=n)] * 2).map(np.array)
)


def one(values):
    """A vector as A of a module; its B is a number that doesn't move."""
    return {"m": (torch.from_numpy(np.asarray(values, np.float64))[None], torch.zeros(1, 1, dtype=torch.float64))}


def between(now, anchor, compare):
    return measured(one(anchor), one(now), "factor", compare)[0].item()


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_the_kl_is_that_of_its_definition_and_never_negative(pair):
    now, anchor = pair
    p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in pair)
    found = between(now, anchor, divergences.softmax_kl)
    assert found == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-9, abs=1e-12)
    assert found >= -1e-14
    p, q = ((x + 1e-3) / (1 + 1e-3 * len(x)) for x in (p, q))
    found = between(now, anchor, divergences.smoothed_softmax_kl(1e-3))
    assert found == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-9, abs=1e-12)
    assert found >= 0


def kl_and_gradient(now, anchor, smoothing=0.0):
    """As the definition has it, in logarithms, of softmaxes to which a number is added."""
    p, q = [x - x.max() - np.log(np.exp(x - x.max()).sum()) for x in (now, anchor)]
    one, other = ((np.exp(x) + smoothing) / (1 + smoothing * len(x)) for x in (p, q))
    ratio = np.log(one / other) if smoothing else p - q
    pull = np.exp(p) * (ratio - np.exp(p) @ ratio) / (1 + smoothing * len(p))
    return float(one @ ratio), pull


@pytest.mark.parametrize("smoothing", [0.0, 1e-8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("now", "anchor"),
    [
        ([0.0, 650.0, 2000.0, 1999.0], [0.0, 1.0, -2.0, 3.0]),
        ([-2000.0, 0.0, 1.0, 1.5], [0.0, 1.0, -2.0, 3.0]),
        ([0.25, 0.5, -3.0, 1.0], [0.25, 0.5, 0.0, 1.0]),
        ([0.25, 3.5, 0.0, 1.0], [0.25, 0.5, 0.0, 1.0]),
        ([-0.5, 0.0, 0.5, 1.0], [700.0, 0.0, 0.5, 1.0]),
        *(([0.25, 0.5, step, 1.0], [0.25, 0.5, 0.0, 1.0]) for step in (-1.0, 1.0, -0.125, 0.125, -(2.0**-7), 2.0**-7)),
    ],
)
def test_a_kl_of_far_and_of_lopsided_steps_is_that_of_its_definition(now, anchor, dtype, smoothing):
    compare = divergences.smoothed_softmax_kl(smoothing) if smoothing else divergences.softmax_kl
    vectors = vectors_of(one(now), "factor")
    blocks = [vectors.read(members_of(one(values), "factor"), dtype) for values in (now, anchor)]
    penalties, gradient = compare(vectors, blocks[1])(blocks[0], 3 * torch.ones_like(vectors.lengths))
    value, pull = kl_and_gradient(np.array(now), np.array(anchor), smoothing)
    assert penalties.dtype == torch.float64
    assert penalties.tolist() == pytest.approx([value, 0.0], rel=1e-6)
    assert gradient.dtype == dtype
    assert vectors.factors(gradient)[0][0].tolist() == pytest.approx(3 * pull, rel=1e-5, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_the_other_distances_are_those_of_their_definition(pair):
    now, anchor = pair
    step = now - anchor
    q = np.exp(anchor - anchor.max()) / np.exp(anchor - anchor.max()).sum()
    curved = 0.5 * float(q @ (step - q @ step) ** 2)
    assert between(now, anchor, distances.squared) == pytest.approx(float(step @ step), rel=1e-12, abs=0)
    assert between(now, anchor, distances.plain) == pytest.approx(float(step @ step) ** 0.5, rel=1e-12, abs=0)
    assert between(now, anchor, distances.quadratic) == pytest.approx(curved, rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.floats(-4.5, 1.0), st.floats(0, 2), st.sampled_from(VECTORS))
def test_float32_factors_give_what_float64_gives(size, shift, regularizer):
    """Steps of 3e-5 to 10 times the factors' own size, some of them with a part that all entries share."""
    size = 0.05 * 10**size
    anchor = random_factors([(4, 100, 70), (3, 20, 300)], dtype=torch.float32, size=0.05)
    now = moved({name: tuple(f + shift * size for f in pair) for name, pair in anchor.items()}, size)
    exact = {name: tuple(f.detach().double().requires_grad_() for f in pair) for name, pair in now.items()}
    value, wanted = (penalty_of(regularizer, live, anchor) for live in (now, exact))
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6, abs=0)
    for found, gradient in zip(gradients(value, now), gradients(wanted, exact), strict=True):
        assert found.dtype == torch.float32
        assert (found.double() - gradient).norm() <= 1e-6 * gradient.norm()


@settings(max_examples=40, deadline=None)
@given(st.floats(3, 6), st.sampled_from(VECTORS), st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_huge_entries_give_finite_penalties(size, regularizer, dtype, only_now):
    now = random_factors([(2, 30, 4), (1, 5, 6)], 0, dtype, 10**size)
    anchor = random_factors([(2, 30, 4), (1, 5, 6)], 1, dtype, 0.05 if only_now else 10**size)
    value = penalty_of(regularizer, now, anchor)
    assert torch.isfinite(value)
    assert value >= 0
    assert all(torch.isfinite(gradient).all() for gradient in gradients(value, now))


def test_a_formula_alone_makes_a_distance():
    """As many operations as a formula needs, differentiated automatically: the same as the closed form."""
    by_formula = distances.differentiated(lambda now, anchor: (now - anchor).square().sum(1))
    anchor = random_factors([(2, 30, 4), (3, 5, 6), (2, 30, 4)])
    now = moved(anchor)
    for group in ("factor", "module", "layer", "rank"):
        found = measured(anchor, now, group, by_formula)
        assert torch.allclose(found, measured(anchor, now, group, distances.squared), rtol=1e-12)
