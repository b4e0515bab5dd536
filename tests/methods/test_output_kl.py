from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.adapted import VOCABULARY, flat, lora_model, move, padded, started
from pretrained import begun, config_of, save_pretrained, some_batch

from peso_cli.errors import InputError
from peso_cli.methods import outputs
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.lora import lora_factors
from peso_cli.methods.parts import Step
from peso_cli.methods.regularizers.output_kl import OutputKL
from peso_cli.training.steps import label_loss

PART = OutputKL(2.0, "sum", "constant")


def read(model, *batches):
    """Let a model's training pass see batches."""
    model.train()
    return sum(label_loss(model, batch, 1.0) for batch in batches)


def naive(x, now, before, scale):
    """KL of the outputs at one token, as its definition has it."""
    new, old = (torch.log_softmax(scale * (b @ (a @ x)), 0) for a, b in (now, before))
    return (new.exp() * (new - old)).sum()


def pairs_of(tokens, rank, wide, high, size):
    make = torch.Generator().manual_seed(tokens + 7 * rank + 31 * wide + 101 * high)
    draw = lambda *shape: size * torch.randn(shape, generator=make, dtype=torch.float64)  # noqa: E731
    now = draw(rank, wide).requires_grad_(), draw(high, rank).requires_grad_()
    return draw(tokens, wide), now, (draw(rank, wide), draw(high, rank))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.sampled_from([1e-2, 1.0, 3.0]))
def test_value_and_gradients_are_those_of_a_loop_over_tokens(tokens, rank, wide, high, size):
    x, now, before = pairs_of(tokens, rank, wide, high, size)
    value, *gradients = outputs.output_kl(x, now, before, 1.5)
    expected = sum(naive(token, now, before, 1.5) for token in x)
    assert value.item() == pytest.approx(expected.item(), rel=1e-8, abs=1e-14)
    for found, wanted in zip(gradients, torch.autograd.grad(expected, now), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-11)


def test_a_few_tokens_at_a_time_give_what_all_at_once_give(monkeypatch):
    x, now, before = pairs_of(9, 2, 4, 5, 1.0)
    whole = outputs.output_kl(x, now, before, 1.0)
    monkeypatch.setattr(outputs, "_CHUNK", 10)
    for part, expected in zip(outputs.output_kl(x, now, before, 1.0), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_huge_factors_give_finite_figures(size):
    x, now, before = pairs_of(5, 2, 4, 6, size)
    assert all(part.isfinite().all() for part in outputs.output_kl(x, now, before, 1.0))


@pytest.mark.parametrize("stacked", [False, True])
def test_the_penalty_of_a_step_is_that_of_what_its_modules_read(stacked):
    model = lora_model(stacked=stacked)
    factors, seen = lora_factors(model), {}
    before = {name: (a.detach().clone(), b.detach().clone()) for name, (a, b) in factors.items()}
    penalty = PART.begin(started(model, past=(before,)))
    move(model, 0.2)
    for name in factors:
        layer = model.get_submodule(name).lora_A["default"]
        layer.register_forward_hook(
            lambda _, inputs, output, name=name: seen.setdefault(name, []).extend(inputs[0].flatten(0, -2).detach())
        )
    batches = [padded(VOCABULARY.size, seed=seed, length=7 + seed) for seed in range(2)]
    read(model, *batches).backward()
    value = penalty.value(Step(batches, 0.5))
    expected = sum(sum(naive(x, factors[n], before[n], 1.5) for x in xs) / len(xs) for n, xs in seen.items())
    assert len(seen) == len(factors)
    assert len(seen["base_model.model.lm_head"]) == sum(len(batch.at) for batch in batches)
    assert value.item() == pytest.approx(2.0 * expected.item(), rel=1e-4)
    wanted = torch.autograd.grad(2.0 * expected, flat(factors))
    for found, want in zip(torch.autograd.grad(value, flat(factors)), wanted, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_the_anchor_there_is_no_penalty_and_no_pull_and_later_there_is(tmp_path, dtype):
    model = begun(Evolving(), config_of(save_pretrained(tmp_path), dtype=dtype))
    batch, penalty = some_batch(model.config.vocab_size), PART.begin(started(model))
    for moved in (False, True):
        move(model, 0.1 if moved else 0.0)
        read(model, batch)
        value = penalty.value(Step((batch,)))
        gradients = torch.autograd.grad(value, flat(lora_factors(model)))
        assert bool(value > 0) is moved
        assert all(g.dtype == torch.float32 and bool(g.abs().max() > 0) is moved for g in gradients)


def test_without_earlier_factors_the_present_ones_are_the_anchor():
    model = lora_model()
    penalty = PART.begin(started(model, past=()))
    read(model, padded(VOCABULARY.size))
    assert penalty.value(Step()).item() == 0.0


def test_the_anchor_is_what_the_latest_stage_left():
    model = lora_model()
    present = {name: (a.detach().clone(), b.detach().clone()) for name, (a, b) in lora_factors(model).items()}
    other = {name: (2 * a, b) for name, (a, b) in present.items()}
    for past, apart in (((other, present), False), ((present, other), True)):
        penalty = PART.begin(started(model, past=past))
        read(model, padded(VOCABULARY.size))
        assert bool(penalty.value(Step()) > 0) is apart


def test_validation_is_not_looked_at_and_what_was_taken_is_gone():
    model, batch = lora_model(), padded(VOCABULARY.size)
    penalty = PART.begin(started(model))
    move(model, 0.2)
    read(model, batch)
    first = penalty.value(Step())
    label_loss(model.eval(), padded(VOCABULARY.size, seed=4), 1.0)
    assert first.item() > 0
    assert penalty.value(Step()).item() == 0.0
    read(model, batch)
    assert penalty.value(Step()).item() == first.item()


def test_reduction_and_schedule_scale_it():
    def value(progress=0.25, **changes):
        model = lora_model()
        penalty = replace(PART, **changes).begin(started(model))
        move(model, 0.2)
        read(model, padded(VOCABULARY.size))
        return penalty.value(Step((), progress)).item()

    modules = len(lora_factors(lora_model()))
    assert value(reduction="mean") == pytest.approx(value() / modules, rel=1e-12)
    assert value(schedule="rise") == pytest.approx(value() / 4, rel=1e-12)
    assert value(schedule="fall") == pytest.approx(value() * 3 / 4, rel=1e-12)


def test_it_acts_on_linear_factors_alone():
    assert replace(PART, strength=0.0).begin(started(lora_model())) is None
    with pytest.raises(InputError, match="embedding"):
        PART.begin(started(lora_model(["embed_tokens", "q_proj"])))
    with pytest.raises(InputError, match="no LoRA factors"):
        PART.begin(replace(started(lora_model()), factors={}))
