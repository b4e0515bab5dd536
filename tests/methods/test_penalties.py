import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.methods import penalties
from peso_cli.methods.regularizers.l2 import L2
from peso_cli.methods.regularizers.orthogonal import Orthogonal
from peso_cli.methods.regularizers.softmax_kl import SoftmaxKL

# The names of the golden numbers: what each is in the terms of a config, at strength 1.
REGULARIZERS = {
    "kl_ref": SoftmaxKL(1.0, "sum", 1e-8),
    "kl_plain": SoftmaxKL(1.0, "sum", 0.0),
    "l2_ref": L2(1.0, "sum", unsquared=True),
    "ortho_ref": Orthogonal(1.0, "sum"),
}
SINGLE_PRECISION = {"kl_ref": 4e-4, "l2_ref": 3e-7, "ortho_ref": 3e-7}


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "proximal.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads((shared / "golden" / "proximal.json").read_text()), arrays


def pull(regularizer, now, anchors):
    """The mean penalty of one module (A, B) over several anchors, and its gradients.

    The regularizer is used as a stage does: it begins while the factors stand at the anchor, then they move.
    """
    factors = [torch.from_numpy(x).double().requires_grad_() for x in now]
    total = 0
    for anchor in anchors:
        live = [torch.from_numpy(x.copy()).double().requires_grad_() for x in anchor]
        penalty = regularizer.begin({"module": tuple(live)})
        with torch.no_grad():
            for parameter, value in zip(live, factors, strict=True):
                parameter.copy_(value)
        value = penalty()
        value.backward()
        total = total + value.detach() / len(anchors)
        for factor, parameter in zip(factors, live, strict=True):
            part = parameter.grad / len(anchors)
            factor.grad = part if factor.grad is None else factor.grad + part
    return float(total), [factor.grad.numpy() for factor in factors]


def module(arrays, case):
    """The current (A, B) of a golden case and its stored ones, oldest first."""
    stored = list(zip(arrays[f"{case}__Aprev"], arrays[f"{case}__Bprev"], strict=True))
    return (arrays[f"{case}__A"], arrays[f"{case}__B"]), stored


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("span", ["latest", "all"])
def test_values_and_gradients_are_the_golden_ones(golden, name, span):
    document, arrays = golden
    seen = 0
    for case, about in document["cases"].items():
        key = f"{name}_{span}"
        if key not in about["values"]:
            assert span == "all"
            assert about["num_previous"] == 1
            continue
        seen += 1
        now, stored = module(arrays, case)
        value, gradients = pull(REGULARIZERS[name], now, stored if span == "all" else stored[-1:])
        tolerance = 1e-5 if about["kind"] == "tiny" else 1e-8
        assert value == pytest.approx(about["values"][key], rel=tolerance, abs=0), case
        for side, gradient in zip("AB", gradients, strict=True):
            expected = arrays[f"{case}__grad_{key}_{side}"]
            largest = np.abs(expected).max()
            assert np.abs(gradient - expected).max() <= max(1e-8 * largest, 1e-16), (case, side)
    assert seen == (3 if span == "all" else len(document["cases"]))


def test_the_reference_in_single_precision_is_as_near_as_it_gets(golden):
    """In single precision a KL of small steps is noise, so those cases are left out."""
    document, arrays = golden
    for case, about in document["cases"].items():
        now, stored = module(arrays, case)
        for name, tolerance in SINGLE_PRECISION.items():
            if name == "kl_ref" and about["kind"] in ("tiny", "clamped"):
                continue
            value, _ = pull(REGULARIZERS[name], now, stored[-1:])
            assert value == pytest.approx(about["values"][f"{name}_latest_f32"], rel=tolerance), (case, name)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_each_factor_is_compared_on_its_own(golden, name):
    """The sum over A and B, as the paper has it, not one distribution over both."""
    document, arrays = golden
    compare = {
        "kl_ref": (lambda anchor: penalties.smoothed_softmax_kl(anchor, 1e-8),) * 2,
        "kl_plain": (penalties.softmax_kl,) * 2,
        "l2_ref": (penalties.plain_distance,) * 2,
        "ortho_ref": (penalties.orthogonality_a, penalties.orthogonality_b),
    }[name]
    for case, about in document["cases"].items():
        if about["num_previous"] > 1:
            continue
        now, (anchor,) = module(arrays, case)
        for side, compared, x, y in zip("AB", compare, now, anchor, strict=True):
            part = compared(torch.from_numpy(y).double()[None])(torch.from_numpy(x).double()[None])
            expected = about["values"][f"{name}_latest_part_{side}"]
            # A part of 5e-11 is a difference of sums near 1, which are rounded.
            assert part.item() == pytest.approx(expected, rel=1e-8, abs=2e-15), case


@pytest.mark.parametrize("smoothing", [0.0, 1e-8])
@pytest.mark.parametrize("tag", ["lora_like", "peaked"])
def test_the_kl_of_a_small_step_is_half_the_variance_of_the_step(golden, tag, smoothing):
    """The paper's corollary, and the golden values along the way."""
    _, arrays = golden
    v_prev, delta = (torch.from_numpy(arrays[f"corollary_{tag}__{name}"]) for name in ("v_prev", "delta"))
    scales = arrays[f"corollary_{tag}__scales"]
    now = torch.stack([v_prev + float(c) * delta for c in scales])[:, None]
    anchor = v_prev.expand_as(now)
    distance = penalties.smoothed_softmax_kl(anchor, smoothing) if smoothing else penalties.softmax_kl(anchor)
    found = distance(now).numpy()
    expected = arrays[f"corollary_{tag}__{'kl_ref' if smoothing else 'kl_plain'}"]
    assert found == pytest.approx(expected, rel=1e-6, abs=0)
    shifted = distance(now + 3.0).numpy()
    assert shifted == pytest.approx(expected, rel=1e-6, abs=0)
    if not smoothing:
        gaps = np.abs(found / arrays[f"corollary_{tag}__half_var_prev"] - 1)
        assert (gaps < 0.3 * scales).all()


@pytest.mark.parametrize("tag", ["a_delta0.1", "a_delta0.01", "a_delta0.001", "a_delta0.0001"])
def test_parameters_in_bfloat16_are_compared_in_double(golden, tag):
    document, arrays = golden
    now, anchor = ([arrays[f"bf16_{tag}__{side}{of}"] for side in "AB"] for of in ("", "prev"))
    live = [torch.from_numpy(x).bfloat16().requires_grad_() for x in anchor]
    penalty = SoftmaxKL(1.0, "sum", 1e-8).begin({"module": tuple(live)})
    with torch.no_grad():
        for parameter, value in zip(live, now, strict=True):
            parameter.copy_(torch.from_numpy(value))
    value = penalty()
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(document["bf16"][tag]["value_f64_same_inputs"], rel=1e-6, abs=0)
    value.backward()
    _, exact = pull(REGULARIZERS["kl_ref"], [x.astype(np.float64) for x in now], [anchor])
    for parameter, gradient in zip(live, exact, strict=True):
        assert parameter.grad.dtype == torch.bfloat16
        rounded = torch.from_numpy(gradient).bfloat16().double()
        assert (parameter.grad.double() - rounded).norm() <= 1e-3 * rounded.norm()


vectors = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.floats(-30, 30), min_size=n, max_size=n)] * 2).map(np.array)
)


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_the_kl_is_that_of_its_definition_and_never_negative(pair):
    now, anchor = (torch.from_numpy(x)[None, None] for x in pair)
    p, q = (np.exp(x - x.max()) / np.exp(x - x.max()).sum() for x in pair)
    found = penalties.softmax_kl(anchor)(now).item()
    assert found == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-9, abs=1e-12)
    assert found >= -1e-14
    assert penalties.smoothed_softmax_kl(anchor, 1e-8)(now).item() >= 0


@settings(max_examples=60, deadline=None)
@given(vectors)
def test_the_distances_are_those_of_their_definition(pair):
    now, anchor = (torch.from_numpy(x)[None, None] for x in pair)
    expected = float(((pair[0] - pair[1]) ** 2).sum())
    assert penalties.squared_distance(anchor)(now).item() == pytest.approx(expected, rel=1e-12, abs=0)
    assert penalties.plain_distance(anchor)(now).item() == pytest.approx(expected**0.5, rel=1e-12, abs=0)
