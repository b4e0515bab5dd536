"""SumLoRA and SD-LoRA on one linear layer, against the golden numbers and against closed forms."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from peso_cli.artifacts import Artifact
from peso_cli.config.compose import compose
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.sd_lora import SDLoRA
from peso_cli.methods.adapters.sum_lora import SumLoRA
from peso_cli.methods.lora import lora_factors
from peso_cli.methods.parts import AdapterStart
from peso_cli.training.checkpoints import trainable

PASTS, CHOICES = ("all", "latest"), (True, False)
CASES = ("r8_p3", "r4_p1_bias", "r8_p0", "r4_alpha4_p2", "r4_alpha2_p4")
EVERY_CASE = pytest.mark.parametrize("case", CASES)


class OneLayer(nn.Module):
    """A language model as far as an adapter looks at it: one linear layer."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
        self.layer.weight = nn.Parameter(weight)
        if bias is not None:
            self.layer.bias = nn.Parameter(bias)

    def forward(self, x):
        return self.layer(x)

    def prepare_inputs_for_generation(self):
        raise AssertionError("nothing is generated here")


def set_pair(model, a, b):
    """Set the live factors of the one layer."""
    ((own_a, own_b),) = lora_factors(model).values()
    with torch.no_grad():
        own_a.copy_(a)
        own_b.copy_(b)


def magnitudes(model):
    """The learnt magnitudes, those of past pairs first; None where there are none."""
    found = [p for name, p in trainable(model).items() if name.endswith("magnitudes")]
    assert len(found) <= 1
    return found[0] if found else None


def stages(adapter, folder, make, lora, pairs):
    """Run a stage that ends at each (A, B), one upon the other, and begin the next one; return its model."""
    past = ()
    for number, pair in enumerate(pairs):
        model = adapter.begin(AdapterStart(make(), lora, past))
        set_pair(model, *pair)
        artifact = Artifact(folder / f"stage_{number}")
        adapter.save(model, artifact.folder)
        artifact.write_state(adapter=adapter.state(model))
        past = (*past, artifact)
    return adapter.begin(AdapterStart(make(), lora, past))


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "forward.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    return json.loads((shared / "golden" / "forward.json").read_text())["cases"], arrays


@pytest.fixture
def begin(golden, tmp_path):
    """Begin a stage of a golden case; gives the model and a function from a name to the case's array."""

    def make(adapter, case, dtype=torch.float64, past=True):
        documents, arrays = golden
        about = documents[case]

        def array(name):
            return arrays[f"{case}__{name}"].to(dtype)

        def layer():
            return OneLayer(array("W"), array("bias") if about["bias"] else None)

        lora = {"r": about["r"], "lora_alpha": about["alpha"], "target_modules": ["layer"]}
        pairs = list(zip(array("Aprev"), array("Bprev"), strict=True)) if past else []
        torch.manual_seed(0)
        return stages(adapter, tmp_path, layer, lora, pairs).eval(), array

    return make


def run(model, x, g):
    """The output of the layer and the gradients of sum(out * g) for A, B and, where there are any, magnitudes."""
    out = model.base_model.model(x)
    ((a, b),) = lora_factors(model).values()
    found = magnitudes(model)
    return out, torch.autograd.grad((out * g).sum(), [a, b] if found is None else [a, b, found])


def close(found, expected, tolerance=1e-10):
    assert found.shape == expected.shape
    assert (found - expected).abs().amax() < tolerance


SUM_OPTIONS = [
    (SumLoRA(past, inherit), f"lora_cumulative_{past}{'' if inherit else '_noinherit'}")
    for past in PASTS
    for inherit in CHOICES
]


@EVERY_CASE
@pytest.mark.parametrize(("adapter", "option"), SUM_OPTIONS)
def test_a_sum_lora_computes_the_golden_numbers(begin, case, adapter, option):
    model, array = begin(adapter, case)
    if adapter.inherit or "p0" not in case:
        close(model.base_model.model(array("x")), array(f"{option}__out_at_start"))
    set_pair(model, array("A"), array("B"))
    out, gradients = run(model, array("x"), array("G"))
    close(out, array(f"{option}__out"))
    for gradient, side in zip(gradients, "AB", strict=True):
        close(gradient, array(f"{option}__grad_{side}"))


def set_magnitudes(model, past, array):
    """Set a case's magnitudes, where there are any."""
    live = magnitudes(model)
    if live is None:
        return
    with torch.no_grad():
        kept = array("magnitudes") if past == "all" else array("magnitudes")[-1:]
        live.copy_(torch.cat([kept, array("current_magnitude")[None]]))


@EVERY_CASE
@pytest.mark.parametrize("past", PASTS)
@pytest.mark.parametrize("inherit", CHOICES)
def test_an_sd_lora_computes_the_golden_numbers_of_the_release(begin, case, past, inherit):
    model, array = begin(SDLoRA(past, inherit, reference_scaling=True), case)
    option = f"sdlora_{past}"
    if inherit:
        close(model.base_model.model(array("x")), array(f"{option}__out_at_start"))
    set_pair(model, array("A"), array("B"))
    set_magnitudes(model, past, array)
    out, gradients = run(model, array("x"), array("G"))
    close(out, array(f"{option}__out"))
    close(gradients[0], array(f"{option}__grad_A"))
    close(gradients[1], array(f"{option}__grad_B"))
    if case != "r8_p0":
        of_past = array(f"{option}__grad_magnitudes")
        wanted = [of_past if past == "all" else of_past[-1:], array(f"{option}__grad_current_magnitude")[None]]
        close(gradients[2], torch.cat(wanted))
    else:
        assert magnitudes(model) is None


@EVERY_CASE
@pytest.mark.parametrize("past", PASTS)
def test_an_sd_lora_scales_every_pair_once_unless_the_release_is_asked_for(begin, golden, case, past):
    model, array = begin(SDLoRA(past, False, reference_scaling=False), case)
    option = f"sdlora_{past}"
    set_pair(model, array("A"), array("B"))
    set_magnitudes(model, past, array)
    out, gradients = run(model, array("x"), array("G"))
    close(out, array(f"{option}__out_paper_scaled_once"))
    close(gradients[0], array(f"{option}__grad_A"))  # the current pair is scaled once either way
    close(gradients[1], array(f"{option}__grad_B"))
    apart = golden[0][case][f"{option}__max_abs_ref_minus_scaled_once"]
    found = (out - array(f"{option}__out")).abs().max().item()
    assert found == pytest.approx(apart, rel=1e-6, abs=1e-10)


@EVERY_CASE
@pytest.mark.parametrize("adapter", [SumLoRA("all", True), SDLoRA("all", True, False), Evolving()])
def test_without_a_past_all_are_a_plain_lora(begin, case, adapter):
    model, array = begin(adapter, case, past=False)
    set_pair(model, array("A"), array("B"))
    out, (of_a, of_b) = run(model, array("x"), array("G"))
    close(out, array("lora__out"))
    close(of_a, array("lora__grad_A"))
    close(of_b, array("lora__grad_B"))


@pytest.mark.parametrize("case", [case for case in CASES if "p0" not in case])
def test_a_plain_lora_that_goes_on_starts_at_the_golden_output(begin, case):
    model, array = begin(Evolving(), case)
    close(model.base_model.model(array("x")), array("lora__out_at_start"))


@EVERY_CASE
@pytest.mark.parametrize(
    ("adapter", "option"), [*SUM_OPTIONS, *((SDLoRA(past, True, True), f"sdlora_{past}") for past in PASTS)]
)
def test_in_single_precision_the_output_is_close(begin, case, adapter, option):
    model, array = begin(adapter, case, torch.float32)
    set_pair(model, array("A"), array("B"))
    if isinstance(adapter, SDLoRA):
        set_magnitudes(model, adapter.past, array)
    close(model.base_model.model(array("x")), array(f"{option}__out_f32"), 1e-5)


@EVERY_CASE
@pytest.mark.parametrize("adapter", [SumLoRA("all", False), SDLoRA("latest", False, True)])
def test_a_fresh_pair_is_uniform_in_its_bound_and_zero(begin, golden, case, adapter):
    model, _ = begin(adapter, case)
    ((a, b),) = lora_factors(model).values()
    bound = golden[0][case]["kaiming_bound"]
    assert 0.9 * bound < a.abs().max() <= bound
    assert a.mean().abs() < 0.2 * bound
    assert not b.any()


# Closed forms


def random_pairs(count, rank, wide, high, seed):
    random = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((rank, wide), (high, rank)))
        for _ in range(count)
    ]


def closed_form(weight, x, g, past, current, weights):
    """Output and gradients of weighted pairs, the last of which is the current one, written out without autograd."""
    pairs = [*past, current]
    out = x @ weight.T + sum(w * x @ a.T @ b.T for w, (a, b) in zip(weights, pairs, strict=True))
    a, b = current
    of_a, of_b = weights[-1] * b.T @ g.T @ x, weights[-1] * g.T @ x @ a.T
    of_weights = torch.stack([(g * (x @ a.T @ b.T)).sum() for a, b in pairs])
    return out, of_a, of_b, of_weights


shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
alphas = st.floats(0.25, 8)
seeds = st.integers(0, 1000)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), shapes, alphas, seeds, st.sampled_from(PASTS), st.booleans())
def test_a_sum_lora_is_its_closed_form(tmp_path_factory, count, shape, alpha, seed, past, inherit):
    rank, wide, high = shape
    (weight, _), (x, g), current, *pairs = random_pairs(count + 3, rank, wide, high, seed)
    weight, x, g = torch.randn(high, wide).double(), x, g.T
    lora = {"r": rank, "lora_alpha": alpha, "target_modules": ["layer"]}
    folder = tmp_path_factory.mktemp("stages")
    model = stages(SumLoRA(past, inherit), folder, lambda: OneLayer(weight.clone()), lora, pairs).eval()
    kept = pairs if past == "all" else pairs[-1:]
    unit = [tuple(m / (m.square().sum().sqrt() + 1e-8) for m in pair) for pair in kept]
    if inherit:
        ((a, b),) = lora_factors(model).values()
        assert torch.equal(a, pairs[-1][0])
        assert torch.equal(b, pairs[-1][1])
    set_pair(model, *current)
    out, gradients = run(model, x, g)
    expected = closed_form(weight, x, g, unit, current, [alpha / rank] * (len(unit) + 1))
    for found, wanted in zip((out, *gradients), expected[:3], strict=True):
        close(found, wanted, 1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), shapes, alphas, seeds, st.sampled_from(PASTS), st.booleans())
def test_an_sd_lora_is_its_closed_form(tmp_path_factory, count, shape, alpha, seed, past, reference_scaling):
    rank, wide, high = shape
    (weight, _), (x, g), current, *pairs = random_pairs(count + 3, rank, wide, high, seed)
    weight, x, g = torch.randn(high, wide).double(), x, g.T
    lora = {"r": rank, "lora_alpha": alpha, "target_modules": ["layer"]}
    folder = tmp_path_factory.mktemp("stages")
    adapter = SDLoRA(past, False, reference_scaling)
    model = stages(adapter, folder, lambda: OneLayer(weight.clone()), lora, pairs).eval()
    kept = pairs if past == "all" else pairs[-1:]
    unit = [tuple(m / m.square().sum().sqrt() for m in pair) for pair in kept]
    s, live = alpha / rank, magnitudes(model)
    assert torch.equal(live, torch.ones(len(unit) + 1, dtype=torch.float64))
    with torch.no_grad():
        live += torch.linspace(-0.5, 0.7, len(live))
    powers = [len(unit) - n if reference_scaling else 1 for n in range(len(unit))]
    scales = torch.tensor([s**power for power in (*powers, 1)], dtype=torch.float64)
    set_pair(model, *current)
    out, gradients = run(model, x, g)
    expected = closed_form(weight, x, g, unit, current, list(scales * live.detach()))
    tolerance = 1e-12 * max(1.0, float(scales.max())) * 1e2
    for found, wanted in zip((out, *gradients), (*expected[:3], scales * expected[3]), strict=True):
        close(found, wanted, tolerance)


@pytest.mark.parametrize("adapter", [SumLoRA("all", False), SDLoRA("all", False, False), SDLoRA("all", True, True)])
def test_a_stage_that_learnt_nothing_adds_nothing(tmp_path, adapter):
    (a, b), (x, g) = random_pairs(2, 2, 5, 4, seed=0)
    weight = torch.randn(4, 5, dtype=torch.float64)
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["layer"]}
    zeros = (a, torch.zeros_like(b))
    model = stages(adapter, tmp_path, lambda: OneLayer(weight.clone()), lora, [zeros, zeros]).eval()
    out, gradients = run(model, x, g.T)
    assert torch.equal(out, x @ weight.T)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("kind", ["sum", "sd"])
@pytest.mark.parametrize("past", PASTS)
@pytest.mark.parametrize("inherit", CHOICES)
def test_each_method_chooses_its_adapter(kind, past, inherit):
    name = f"{kind}lora_{past}{'_inherit' if inherit else ''}"
    config = compose([f"method={name}"]).config
    expected = SumLoRA(past, inherit) if kind == "sum" else SDLoRA(past, inherit, False)
    assert config.adapter == expected
    assert (config.method.name, config.regularizer.name, config.memory.name) == (name, "none", "current")
