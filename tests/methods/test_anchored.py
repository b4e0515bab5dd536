"""What all regularizers share that hold the factors to earlier ones."""

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.choosing import chosen, gradients, moved, penalty_of, random_factors
from pydantic.dataclasses import dataclass
from torch import nn

from peso_cli.errors import InputError
from peso_cli.methods.anchored import anchored
from peso_cli.methods.distances import differentiated, squared
from peso_cli.methods.parts import RegularizerStart, Step
from peso_cli.methods.settings import AnchoredSettings
from peso_cli.methods.vectors import vectors_of

NAMES = ["softmax_kl", "l2", "quadratic", "rank_kl", "orthogonal", "o_lora"]
GROUPED = ["softmax_kl", "l2", "quadratic"]
SHAPES = [(2, 30, 40), (3, 5, 6), (2, 30, 40)]
ALL_NAMES = pytest.mark.parametrize("name", NAMES)


@ALL_NAMES
def test_the_latest_stage_is_the_anchor_and_all_are_on_average(name):
    first, second, now = (random_factors(SHAPES, seed) for seed in range(3))
    of_first, of_second = (penalty_of(chosen(name), now, one) for one in (first, second))
    latest = penalty_of(chosen(name), now, first, second)
    both = penalty_of(chosen(name, anchors="all"), now, first, second)
    assert latest == of_second != of_first
    assert both.item() == pytest.approx((of_first.item() + of_second.item()) / 2, rel=1e-12)
    wanted = [(x + y) / 2 for x, y in zip(gradients(of_first, now), gradients(of_second, now), strict=True)]
    for found, gradient in zip(gradients(both, now), wanted, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-14)


@ALL_NAMES
@pytest.mark.parametrize("anchors", ["latest", "all"])
def test_where_no_stage_left_factors_the_present_ones_are_the_anchor(name, anchors):
    live = random_factors(SHAPES)
    before = {module: tuple(f.detach().clone() for f in pair) for module, pair in live.items()}
    penalty = chosen(name, anchors=anchors).begin(RegularizerStart(nn.Module(), live))
    after = moved(live)
    with torch.no_grad():
        for module, pair in live.items():
            for factor, value in zip(pair, after[module], strict=True):
                factor.copy_(value)
    assert penalty.value(Step()).item() == penalty_of(chosen(name), after, before).item() != 0


@ALL_NAMES
@pytest.mark.parametrize("anchors", ["latest", "all"])
def test_a_stage_that_left_other_factors_is_refused(name, anchors):
    now, other = random_factors(SHAPES), random_factors([*SHAPES[:2], (4, 30, 40)])
    start = RegularizerStart(nn.Module(), now, (now, {"m0": now["m0"]}))
    with pytest.raises(InputError, match=r"^the adapter of an earlier stage \(2 of 2\) .* for m1; .*backbone.lora$"):
        chosen(name, anchors=anchors).begin(start)
    with pytest.raises(InputError, match=r"^the adapter of an earlier stage \(1 of 1\) .* for m2; "):
        chosen(name, anchors=anchors).begin(RegularizerStart(nn.Module(), now, (other,)))


@ALL_NAMES
def test_only_the_anchors_in_use_must_fit(name):
    now = random_factors(SHAPES)
    assert penalty_of(chosen(name), now, {}, now) is not None


@ALL_NAMES
def test_without_factors_there_is_nothing_to_hold(name):
    with pytest.raises(InputError, match="regularizer=none"):
        chosen(name).begin(RegularizerStart(nn.Module(), {}))


@ALL_NAMES
def test_the_schedule_is_a_factor_on_the_strength(name):
    before = random_factors(SHAPES)
    now = moved(before)
    whole = penalty_of(chosen(name), now, before)
    for schedule, progress, share in (("constant", 0.3, 1.0), ("rise", 0.3, 0.3), ("fall", 0.3, 0.7), ("rise", 0, 0)):
        part = penalty_of(chosen(name, schedule=schedule), now, before, progress=progress)
        assert part.item() == pytest.approx(share * whole.item(), rel=1e-12)
        for found, gradient in zip(gradients(part, now), gradients_of(name, now, before), strict=True):
            torch.testing.assert_close(found, share * gradient, rtol=1e-9, atol=1e-14)


def gradients_of(name, now, before):
    return gradients(penalty_of(chosen(name), now, before), now)


@ALL_NAMES
def test_per_parameter_multiplies_with_the_number_of_entries(name):
    """All factors of these modules have 60 numbers; a rank has 20 + 20."""
    before = random_factors([(3, 20, 20)] * 2)
    now = moved(before)
    entries = 40 if name == "rank_kl" else 60
    whole = penalty_of(chosen(name), now, before).item()
    assert penalty_of(chosen(name, scale="per_parameter"), now, before).item() == pytest.approx(entries * whole)


@pytest.mark.parametrize("name", GROUPED)
def test_per_parameter_weighs_vectors_of_several_lengths_each_by_its_own(name):
    before = random_factors([(2, 3, 50), (1, 300, 7)])
    now = moved(before)
    parts = [
        len(pair[side].flatten()) * penalty_of(chosen(name), alone(now, m, side), alone(before, m, side)).item()
        for m, pair in now.items()
        for side in (0, 1)
    ]
    assert penalty_of(chosen(name, scale="per_parameter"), now, before).item() == pytest.approx(sum(parts))


def alone(factors, module, side):
    """One factor as A of a module, whose B doesn't move."""
    return {"m": (factors[module][side].reshape(1, -1), torch.zeros(1, 1, dtype=torch.float64))}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(GROUPED), st.integers(0, 5))
def test_a_group_is_one_vector(name, seed):
    """Of a module: A and B one behind the other. Of a layer: all its factors; a module outside is a group by itself."""
    names = ["x.layers.0.q", "x.layers.0.k", "x.layers.11.q", "x.layers.1.q", "x.head"]
    shapes = [(2, 30, 4), (3, 5, 6), (2, 30, 4), (1, 400, 3), (1, 2, 3)]
    before = dict(zip(names, random_factors(shapes, seed).values(), strict=True))
    now = moved(before, seed=seed + 7)
    groups = {"module": [[n] for n in names], "layer": [names[:2], [names[2]], [names[3]], [names[4]]]}
    for group, members in groups.items():
        whole = penalty_of(
            chosen(name, group=group, unsquared=True) if name == "l2" else chosen(name, group=group), now, before
        )
        rows = [[torch.cat([f.flatten() for m in one for f in x[m]])[None] for one in members] for x in (now, before)]
        single = chosen(name, unsquared=True) if name == "l2" else chosen(name)
        parts = [penalty_of(single, as_a(n), as_a(b)).item() for n, b in zip(*rows, strict=True)]
        assert whole.item() == pytest.approx(sum(parts), rel=1e-10)


def as_a(row):
    return {"m": (row, torch.zeros(1, 1, dtype=torch.float64))}


def test_a_rank_is_a_row_of_a_and_its_column_of_b():
    before = random_factors([(3, 30, 300), (1, 5, 6)])
    now = moved(before)
    parts = []
    for module, (a, b) in now.items():
        old_a, old_b = before[module]
        for k in range(len(a)):
            vector, old = (torch.cat([x[k], y[:, k]])[None] for x, y in ((a, b), (old_a, old_b)))
            parts.append(penalty_of(chosen("softmax_kl"), as_a(vector), as_a(old)).item())
    assert penalty_of(chosen("rank_kl"), now, before).item() == pytest.approx(sum(parts), rel=1e-10)


def test_unknown_numbers_are_read_and_given_back_where_they_lie():
    for group in ("factor", "module", "layer", "rank"):
        factors = random_factors([(3, 30, 300), (1, 5, 6), (2, 256, 128)])
        members = [factor for pair in factors.values() for factor in pair]
        vectors = vectors_of(factors, group)
        block = vectors.read(members, torch.float64)
        assert all(torch.equal(*pair) for pair in zip(vectors.factors(block), members, strict=True))
        assert bool(block[~vectors.filled].eq(0).all())
        assert int(vectors.filled.sum()) == int(vectors.lengths.sum()) == sum(m.numel() for m in members)


@pytest.mark.parametrize(
    "part",
    [
        chosen("softmax_kl"),
        chosen("softmax_kl", smoothing=1e-8),
        chosen("rank_kl"),
        chosen("quadratic"),
        chosen("l2"),
        chosen("l2", unsquared=True),
        chosen("orthogonal"),
        chosen("o_lora"),
    ],
)
def test_the_gradient_of_a_step_outlives_the_next_one(part):
    before = random_factors(SHAPES)
    now = moved(before)
    penalty = part.begin(RegularizerStart(nn.Module(), now, (before,)))
    first = gradients(penalty.value(Step()), now)
    kept = [gradient.clone() for gradient in first]
    with torch.no_grad():
        for pair in now.values():
            for factor in pair:
                factor.mul_(2)
    gradients(3 * penalty.value(Step()), now)
    assert all(torch.equal(*pair) for pair in zip(first, kept, strict=True))


@dataclass(frozen=True)
class OwnDistance(AnchoredSettings):
    """What somebody might write: a formula over stacks of vectors."""

    name: Literal["own"] = "own"

    def begin(self, start):
        def distance(now, anchor):
            return (now - anchor).square().sum(1)

        return anchored(self, start, "module", differentiated(distance))


def test_a_regularizer_of_ones_own_is_a_formula_and_three_lines():
    before = random_factors(SHAPES)
    now = moved(before)
    own = OwnDistance(2.0, "mean", "latest", "published", "constant")
    value, wanted = penalty_of(own, now, before), penalty_of(chosen("l2", strength=2.0, reduction="mean"), now, before)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-12)
    for found, gradient in zip(gradients(value, now), gradients(wanted, now), strict=True):
        torch.testing.assert_close(found, gradient)


def test_a_distance_made_once_measures_again_and_again():
    before = random_factors(SHAPES)
    members = [factor for pair in before.values() for factor in pair]
    vectors = vectors_of(before, "factor")
    anchor = vectors.read(members, torch.float64)
    distance = squared(vectors, anchor)
    for size in (0.0, 1.0, 2.0):
        found, _ = distance(anchor + size * vectors.filled, torch.ones_like(vectors.lengths))
        assert torch.allclose(found, size**2 * vectors.lengths)


def test_the_order_of_an_earlier_stages_modules_does_not_matter():
    now = random_factors([(2, 3, 4), (2, 5, 6)])
    past = moved(now)
    turned = dict(reversed(past.items()))
    for name in ("softmax_kl", "l2", "orthogonal", "rank_kl", "quadratic"):
        assert penalty_of(chosen(name), now, turned).item() == penalty_of(chosen(name), now, past).item()
