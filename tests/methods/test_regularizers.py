"""The regularizers that hold factors to earlier ones, one against the other, and as a part of what is minimised."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.choosing import chosen, gradients, moved, penalty_of, random_factors
from pydantic import ValidationError
from torch import nn

from peso_cli.methods.parts import RegularizerStart, Step
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.training.layouts import Batch
from peso_cli.training.steps import label_loss


def part(name, **changes):
    return chosen(name, **{"strength": 2.0, "reduction": "mean", **changes})


KL, REFERENCE_KL = part("softmax_kl"), part("softmax_kl", smoothing=1e-8)
DISTANCE, SQUARED = part("l2", unsquared=True), part("l2")
ORTHOGONAL, OVERLAP = part("orthogonal"), part("o_lora")
HOLDING = [KL, part("softmax_kl", group="module"), REFERENCE_KL, part("rank_kl"), part("quadratic"), DISTANCE, SQUARED]
"""Those that are least at the anchor; the others push away from it instead."""
ALL = [*HOLDING, ORTHOGONAL, OVERLAP]

shapes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from(ALL))
def test_stacking_equals_a_loop_over_modules(modules, regularizer):
    before = random_factors(modules)
    now = moved(before)
    value = penalty_of(regularizer, now, before)
    parts = [penalty_of(regularizer, {name: now[name]}, {name: before[name]}) for name in now]
    one_by_one = sum(parts) / len(modules)
    assert value.item() == pytest.approx(one_by_one.item(), rel=1e-12)
    for found, expected in zip(gradients(value, now), gradients(one_by_one, now), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from(ALL), st.floats(0.1, 100))
def test_the_sum_is_the_mean_times_the_modules_and_both_grow_with_the_strength(modules, regularizer, strength):
    before = random_factors(modules)
    now = moved(before)
    mean, total, stronger = (
        penalty_of(replace(regularizer, **changes), now, before).item()
        for changes in ({}, {"reduction": "sum"}, {"strength": strength})
    )
    assert total == pytest.approx(mean * len(modules), rel=1e-12)
    assert stronger == pytest.approx(mean * strength / 2.0, rel=1e-12)


@pytest.mark.parametrize("regularizer", [*ALL, NoRegularizer()])
def test_strength_zero_or_no_regularizer_is_no_penalty(regularizer):
    off = regularizer if isinstance(regularizer, NoRegularizer) else replace(regularizer, strength=0.0)
    assert off.begin(RegularizerStart(nn.Module(), random_factors([(2, 3, 4)]))) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("regularizer", HOLDING)
def test_at_the_anchor_there_is_no_penalty_and_no_pull(regularizer, dtype):
    factors = random_factors([(2, 30, 4), (2, 5, 6), (1, 5, 6)], dtype=dtype)
    value = penalty_of(regularizer, factors)
    assert value.item() == 0.0
    assert all(bool((gradient == 0.0).all()) for gradient in gradients(value, factors))


@pytest.mark.parametrize("regularizer", [ORTHOGONAL, OVERLAP])
def test_at_the_anchor_others_push(regularizer):
    factors = random_factors([(2, 30, 4)])
    value = penalty_of(regularizer, factors)
    assert value > 0
    assert gradients(value, factors)[0].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_earlier_adapters_read_is_compared_entry_by_entry(dtype):
    (_, (a, b)), (_, (old, _)) = (next(iter(random_factors([(2, 30, 4)], seed, dtype).items())) for seed in (0, 1))
    now, before = {"m": (a, b)}, {"m": (old.detach(), b.detach())}
    value = penalty_of(OVERLAP, now, before)
    products = [float(row.detach().double() @ other.detach().double()) for row in old for other in a]
    assert value.item() == pytest.approx(2.0 * sum(map(abs, products)), rel=1e-12)
    assert [gradient.abs().max() > 0 for gradient in gradients(value, now)] == [True, False]


@pytest.mark.parametrize("regularizer", HOLDING)
def test_a_factor_that_stayed_is_not_pulled_while_another_moves(regularizer):
    before = random_factors([(2, 5, 6), (2, 5, 6)])
    now = {"m0": before["m0"], "m1": (moved(before)["m1"][0], before["m1"][1])}
    found = [bool(gradient.abs().max() > 1e-15) for gradient in gradients(penalty_of(regularizer, now, before), now)]
    together_with_a = regularizer.name == "rank_kl" or getattr(regularizer, "group", "factor") == "module"
    assert found == [False, False, True, together_with_a]


@pytest.mark.parametrize("regularizer", ALL)
def test_the_gradient_is_that_of_finite_differences(regularizer):
    before = random_factors([(2, 3, 4), (1, 3, 4)])
    now = moved(before)
    penalty = regularizer.begin(RegularizerStart(nn.Module(), now, (before,)))
    members = [factor for pair in now.values() for factor in pair]
    for factor, gradient in zip(members, gradients(penalty.value(Step()), now), strict=True):
        direction = torch.randn(factor.shape, generator=torch.Generator().manual_seed(3), dtype=factor.dtype)
        values = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                factor.add_(step * direction)
            values.append(penalty.value(Step()).item())
        slope = (values[0] - values[1]) / 2e-6
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-5, abs=1e-8)


def test_a_config_refuses_what_makes_no_sense():
    for wrong in (
        {"strength": -1.0},
        {"strength": float("inf")},
        {"reduction": "median"},
        {"anchors": "first"},
        {"scale": 2},
        {"schedule": "cosine"},
        {"group": "rank"},
        {"smoothing": -1e-8},
        {"weight": 1},
    ):
        with pytest.raises(ValidationError):
            chosen("softmax_kl", **wrong)


class GivenLogits(nn.Module):
    """A language model whose hidden states are given logits, whatever it reads, and whose head changes nothing."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def get_decoder(self):
        return lambda **_: SimpleNamespace(last_hidden_state=self.logits)

    def get_input_embeddings(self):
        return nn.Identity()

    def get_output_embeddings(self):
        return nn.Identity()


@pytest.fixture(scope="module")
def total_loss(shared):
    with np.load(shared / "golden" / "total_loss.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads((shared / "golden" / "total_loss.json").read_text()), arrays


def cross_entropy(document, arrays):
    """The mean cross-entropy of the golden logits, through the training step's own loss, and the gradient's source."""
    model = GivenLogits(torch.from_numpy(arrays["logits"]))
    labels = arrays["labels"]
    rows, columns = np.nonzero(labels != -100)
    assert columns.min() > 0
    at = rows * labels.shape[1] + columns - 1  # a label is predicted one position before its own
    batch = Batch(np.zeros_like(labels), at, labels[rows, columns])
    return label_loss(model, batch, document["temperature"]) / len(at), model.logits


def modules_of(document, arrays):
    """The current factors of all modules, and the stored ones, oldest first."""
    names = [f"m{n}" for n in range(len(document["shapes"]))]
    now = {
        name: tuple(torch.from_numpy(arrays[f"{name}__{side}"]).double().requires_grad_() for side in "AB")
        for name in names
    }
    count = document["shapes"][0][-1]
    stored = [
        {name: tuple(torch.from_numpy(arrays[f"{name}__{side}prev"][one]) for side in "AB") for name in names}
        for one in range(count)
    ]
    return now, stored


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("lora_kldiv_latest", [REFERENCE_KL]),
        ("lora_kldiv", [REFERENCE_KL]),
        ("lora_l2_latest", [DISTANCE]),
        ("lora_orthogonal_latest", [ORTHOGONAL]),
        ("lora_kldiv_l2_latest", [REFERENCE_KL, DISTANCE]),
    ],
)
def test_what_is_minimised_is_the_golden_total(total_loss, option, parts):
    document, arrays = total_loss
    expected = document["results"][option]
    loss, logits = cross_entropy(document, arrays)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected["ce_over_temperature"], rel=1e-6)
    now, stored = modules_of(document, arrays)
    anchors = "latest" if option.endswith("latest") else "all"
    total, pull = 0.0, {}
    for part in (replace(p, strength=document["weight"], anchors=anchors) for p in parts):
        value = penalty_of(part, now, *stored)
        total += value.item()
        sides = [f"{name}__grad_{side}" for name in now for side in "AB"]
        for side, gradient in zip(sides, gradients(value, now), strict=True):
            pull[side] = pull.get(side, 0) + gradient.numpy()
    assert total == pytest.approx(document["weight"] * expected["mean_over_modules"], rel=1e-8)
    assert loss.item() + total == pytest.approx(expected["total"], rel=1e-6)
    loss.backward()
    wanted = arrays[f"{option}__grad_logits"]
    assert np.abs(logits.grad.numpy() - wanted).max() <= 1e-6 * np.abs(wanted).max()
    for side, gradient in pull.items():
        wanted = arrays[f"{option}__{side}"]
        assert np.abs(gradient - wanted).max() <= 1e-8 * np.abs(wanted).max(), side


@pytest.mark.parametrize("option", ["weight_zero", "no_history"])
def test_without_a_penalty_the_total_is_the_cross_entropy(total_loss, option):
    document, arrays = total_loss
    loss, _ = cross_entropy(document, arrays)
    assert loss.item() == pytest.approx(document["results"][option]["total"], rel=1e-6)
