"""Penalties of factors that are held to earlier ones, against the golden numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.choosing import chosen, gradients, penalty_of
from torch import nn

from peso_cli.methods import distances, divergences
from peso_cli.methods.anchored import measured
from peso_cli.methods.parts import RegularizerStart, Step

# The names of the golden numbers: what each is in the terms of a config, and how near single precision comes.
REGULARIZERS = {
    "kl_ref": chosen("softmax_kl", smoothing=1e-8),
    "kl_plain": chosen("softmax_kl"),
    "l2_ref": chosen("l2", unsquared=True),
    "ortho_ref": chosen("orthogonal"),
}
SINGLE_PRECISION = {"kl_ref": 4e-4, "l2_ref": 3e-7, "ortho_ref": 3e-7}
COMPARED = {
    "kl_ref": divergences.smoothed_softmax_kl(1e-8),
    "kl_plain": divergences.softmax_kl,
    "l2_ref": distances.plain,
}


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "proximal.npz") as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads((shared / "golden" / "proximal.json").read_text()), arrays


def module(arrays, case):
    """The current factors of a golden case and its stored ones, oldest first."""
    stored = zip(arrays[f"{case}__Aprev"], arrays[f"{case}__Bprev"], strict=True)
    now = tuple(torch.from_numpy(arrays[f"{case}__{side}"]).double().requires_grad_() for side in "AB")
    return {"m": now}, [{"m": (torch.from_numpy(a), torch.from_numpy(b))} for a, b in stored]


@pytest.mark.parametrize("name", REGULARIZERS)
@pytest.mark.parametrize("anchors", ["latest", "all"])
def test_values_and_gradients_are_the_golden_ones(golden, name, anchors):
    document, arrays = golden
    key, seen = f"{name}_{anchors}", 0
    for case, about in document["cases"].items():
        if key not in about["values"]:
            assert (anchors, about["num_previous"]) == ("all", 1)
            continue
        seen += 1
        now, stored = module(arrays, case)
        value = penalty_of(replace(REGULARIZERS[name], anchors=anchors), now, *stored)
        tolerance = 1e-5 if about["kind"] == "tiny" else 1e-8
        assert value.item() == pytest.approx(about["values"][key], rel=tolerance, abs=0), case
        for side, gradient in zip("AB", gradients(value, now), strict=True):
            expected = arrays[f"{case}__grad_{key}_{side}"]
            error = np.abs(gradient.numpy() - expected).max()
            assert error <= max(1e-8 * np.abs(expected).max(), 1e-16), (case, side)
    assert seen == (3 if anchors == "all" else len(document["cases"]))


def test_one_softmax_over_both_factors_of_a_module_is_another_number(golden):
    document, arrays = golden
    for case, about in document["cases"].items():
        now, stored = module(arrays, case)
        value = penalty_of(chosen("softmax_kl", group="module"), now, *stored).item()
        tolerance = 1e-5 if about["kind"] == "tiny" else 1e-8
        assert value == pytest.approx(about["values"]["kl_plain_concat_latest"], rel=tolerance, abs=0), case


def test_the_reference_in_single_precision_is_as_near_as_it_gets(golden):
    """In single precision a KL of small steps is noise, so those cases are left out."""
    document, arrays = golden
    for case, about in document["cases"].items():
        now, stored = module(arrays, case)
        for name, tolerance in SINGLE_PRECISION.items():
            if name == "kl_ref" and about["kind"] in ("tiny", "clamped"):
                continue
            value = penalty_of(REGULARIZERS[name], now, *stored).item()
            assert value == pytest.approx(about["values"][f"{name}_latest_f32"], rel=tolerance), (case, name)


@pytest.mark.parametrize("name", COMPARED)
def test_each_factor_is_compared_on_its_own(golden, name):
    """The sum over A and B, as the paper has it, not one distribution over both."""
    document, arrays = golden
    for case, about in document["cases"].items():
        if about["num_previous"] > 1:
            continue
        now, (anchor,) = module(arrays, case)
        parts = measured(anchor, now, "factor", COMPARED[name]).tolist()
        # A part of 5e-11 is a difference of sums near 1 in the reference, which are rounded.
        expected = [about["values"][f"{name}_latest_part_{side}"] for side in "AB"]
        assert parts == pytest.approx(expected, rel=1e-8, abs=2e-15), case


@pytest.mark.parametrize("smoothing", [0.0, 1e-8])
@pytest.mark.parametrize("tag", ["lora_like", "peaked"])
def test_the_kl_of_a_small_step_is_half_the_variance_of_the_step(golden, tag, smoothing):
    """The paper's corollary, and the golden values along the way."""
    _, arrays = golden
    before, steps = _along(arrays, tag)
    compare = divergences.smoothed_softmax_kl(smoothing) if smoothing else divergences.softmax_kl
    expected = arrays[f"corollary_{tag}__{'kl_ref' if smoothing else 'kl_plain'}"]
    for shift in (0.0, 3.0):
        now = {name: (a + shift, b + shift) for name, (a, b) in steps.items()}
        found = measured(before, now, "factor", compare)[::2].numpy()
        assert found == pytest.approx(expected, rel=1e-6, abs=0)
    half_variance = measured(before, steps, "factor", distances.quadratic)[::2].numpy()
    assert half_variance == pytest.approx(arrays[f"corollary_{tag}__half_var_prev"], rel=1e-8, abs=0)
    if not smoothing:
        assert (np.abs(found / half_variance - 1) < 0.3 * arrays[f"corollary_{tag}__scales"]).all()


def _along(arrays, tag):
    """The golden vector before and after steps of all scales, as A of one module each; B stays."""
    before, delta = (torch.from_numpy(arrays[f"corollary_{tag}__{name}"])[None] for name in ("v_prev", "delta"))
    rest = torch.zeros(1, 1, dtype=torch.float64)
    scales = arrays[f"corollary_{tag}__scales"]
    return {str(c): (before, rest) for c in scales}, {str(c): (before + float(c) * delta, rest) for c in scales}


@pytest.mark.parametrize("tag", ["a_delta0.1", "a_delta0.01", "a_delta0.001", "a_delta0.0001"])
def test_parameters_in_bfloat16_are_compared_exactly(golden, tag):
    document, arrays = golden
    now, anchor = ([torch.from_numpy(arrays[f"bf16_{tag}__{side}{of}"]) for side in "AB"] for of in ("", "prev"))
    live = {"m": tuple(x.bfloat16().requires_grad_() for x in anchor)}
    penalty = REGULARIZERS["kl_ref"].begin(RegularizerStart(nn.Module(), live))
    with torch.no_grad():
        for parameter, value in zip(live["m"], now, strict=True):
            parameter.copy_(value)
    value = penalty.value(Step())
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(document["bf16"][tag]["value_f64_same_inputs"], rel=1e-6, abs=0)
    exact = {"m": tuple(x.double().requires_grad_() for x in now)}
    wanted = gradients(penalty_of(REGULARIZERS["kl_ref"], exact, {"m": tuple(anchor)}), exact)
    for found, gradient in zip(gradients(value, live), wanted, strict=True):
        assert found.dtype == torch.bfloat16
        rounded = gradient.bfloat16().double()
        assert (found.double() - rounded).norm() <= 1e-3 * rounded.norm()
