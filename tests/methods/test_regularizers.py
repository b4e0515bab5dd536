import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import nn

from peso_cli.methods.regularizers.l2 import L2
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.methods.regularizers.orthogonal import Orthogonal
from peso_cli.methods.regularizers.softmax_kl import SoftmaxKL
from peso_cli.training.layouts import Batch
from peso_cli.training.steps import label_loss

KL, REFERENCE_KL = SoftmaxKL(2.0, "mean", 0.0), SoftmaxKL(2.0, "mean", 1e-8)
DISTANCE, SQUARED = L2(2.0, "mean", unsquared=True), L2(2.0, "mean", unsquared=False)
ORTHOGONAL = Orthogonal(2.0, "mean")
ALL = [KL, REFERENCE_KL, DISTANCE, SQUARED, ORTHOGONAL]
HOLDING = [KL, REFERENCE_KL, DISTANCE, SQUARED]
"""Those that are least at the anchor; the orthogonal one pushes away from it instead."""

shapes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=5)


def random_factors(modules, seed=0, dtype=torch.float64):
    """Factors of modules given as (rank, in, out)."""
    torch.manual_seed(seed)
    return {
        f"m{n}": tuple(torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((rank, wide), (high, rank)))
        for n, (rank, wide, high) in enumerate(modules)
    }


def move(factors, seed=1):
    """Move factors by a random step."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for pair in factors.values():
            for factor in pair:
                factor.add_(0.3 * torch.randn_like(factor))


def moved_penalty(regularizer, factors):
    """The penalty after a stage began at the factors and then moved them."""
    penalty = regularizer.begin(factors)
    move(factors)
    return penalty()


def gradients(value, factors):
    return torch.autograd.grad(value, [factor for pair in factors.values() for factor in pair])


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from(ALL))
def test_stacking_equals_a_loop_over_factors(modules, regularizer):
    together = random_factors(modules)
    value = moved_penalty(regularizer, together)
    anchors = random_factors(modules)
    parts = []
    for name, pair in anchors.items():
        penalty = regularizer.begin({name: pair})
        with torch.no_grad():
            for factor, moved in zip(pair, together[name], strict=True):
                factor.copy_(moved)
        parts.append(penalty())
    one_by_one = sum(parts) / len(modules)
    assert value.item() == pytest.approx(one_by_one.item(), rel=1e-12)
    for found, expected in zip(gradients(value, together), gradients(one_by_one, anchors), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(shapes, st.sampled_from(ALL), st.floats(0.1, 100))
def test_the_sum_is_the_mean_times_the_modules_and_both_grow_with_the_strength(modules, regularizer, strength):
    mean = moved_penalty(regularizer, random_factors(modules)).item()
    total = moved_penalty(replace(regularizer, reduction="sum"), random_factors(modules)).item()
    assert total == pytest.approx(mean * len(modules), rel=1e-12)
    stronger = moved_penalty(replace(regularizer, strength=strength), random_factors(modules)).item()
    assert stronger == pytest.approx(mean * strength / 2.0, rel=1e-12)


@pytest.mark.parametrize("regularizer", ALL)
def test_strength_zero_or_no_factor_is_no_penalty(regularizer):
    assert replace(regularizer, strength=0.0).begin(random_factors([(2, 3, 4)])) is None
    assert regularizer.begin({}) is None


def test_no_regularizer_is_no_penalty():
    assert NoRegularizer().begin(random_factors([(2, 3, 4)])) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("regularizer", HOLDING)
def test_at_the_anchor_there_is_no_penalty_and_no_pull(regularizer, dtype):
    factors = random_factors([(2, 30, 4), (2, 5, 6), (1, 5, 6)], dtype=dtype)
    value = regularizer.begin(factors)()
    assert value.item() == 0.0
    for gradient in gradients(value, factors):
        # The softmax's backward leaves the last bit of a double; a distance leaves nothing.
        assert gradient.abs().max() <= (1e-15 if isinstance(regularizer, SoftmaxKL) else 0.0)


@pytest.mark.parametrize("regularizer", HOLDING)
def test_a_factor_that_stayed_is_not_pulled_while_another_moves(regularizer):
    factors = random_factors([(2, 5, 6), (2, 5, 6)])
    penalty = regularizer.begin(factors)
    with torch.no_grad():
        factors["m1"][0].add_(torch.randn(2, 5))
    found = gradients(penalty(), factors)
    assert [bool(gradient.abs().max() > 1e-15) for gradient in found] == [False, False, True, False]


@pytest.mark.parametrize("regularizer", ALL)
def test_the_gradient_is_that_of_finite_differences(regularizer):
    factors = random_factors([(2, 3, 4), (1, 3, 4)])
    penalty = regularizer.begin(factors)
    move(factors)
    flat = [factor for pair in factors.values() for factor in pair]
    for factor, gradient in zip(flat, gradients(penalty(), factors), strict=True):
        direction = torch.randn_like(factor)
        values = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                factor.add_(step * direction)
            values.append(penalty().item())
        slope = (values[0] - values[1]) / 2e-6
        assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("regularizer", ALL)
def test_the_anchor_stays_where_the_stage_began(regularizer):
    """A later stage begins anew at its own present values, and the earlier penalty keeps its own."""
    factors = random_factors([(2, 3, 4)])
    first = moved_penalty(regularizer, factors)
    again = regularizer.begin(factors)()
    if isinstance(regularizer, Orthogonal):
        assert again.item() != first.item()
    else:
        assert again.item() == 0.0
        assert first.item() > 0.0


def test_a_config_chooses_by_name_and_refuses_what_makes_no_sense():
    adapter = TypeAdapter(RegularizerPart)
    chosen = adapter.validate_python({"name": "softmax_kl", "strength": 2, "reduction": "mean", "smoothing": 1e-8})
    assert chosen == SoftmaxKL(2.0, "mean", 1e-8)
    for wrong in (
        {"name": "softmax_kl", "strength": -1, "reduction": "mean", "smoothing": 0},
        {"name": "softmax_kl", "strength": float("inf"), "reduction": "mean", "smoothing": 0},
        {"name": "softmax_kl", "strength": 1, "reduction": "median", "smoothing": 0},
        {"name": "softmax_kl", "strength": 1, "reduction": "mean", "smoothing": 0, "weight": 1},
        {"name": "kl", "strength": 1, "reduction": "mean"},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


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


def modules_of(document, arrays, stored):
    """Factors that stand at a stored adapter, and the values to which they moved."""
    names = [f"m{n}" for n in range(len(document["shapes"]))]
    anchors = {
        name: tuple(torch.from_numpy(arrays[f"{name}__{side}prev"][stored]).double().requires_grad_() for side in "AB")
        for name in names
    }
    return anchors, {name: [torch.from_numpy(arrays[f"{name}__{side}"]) for side in "AB"] for name in names}


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
    count = document["shapes"][0][-1]
    stored = [count - 1] if option.endswith("latest") else range(count)
    total, pull = 0.0, {}
    for part in (replace(p, strength=document["weight"] / len(stored)) for p in parts):
        for one in stored:
            factors, moved = modules_of(document, arrays, one)
            penalty = part.begin(factors)
            with torch.no_grad():
                for name, pair in factors.items():
                    for factor, value in zip(pair, moved[name], strict=True):
                        factor.copy_(value)
            value = penalty()
            total += value.item()
            sides = [f"{name}__grad_{side}" for name in factors for side in "AB"]
            for side, gradient in zip(sides, gradients(value, factors), strict=True):
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
