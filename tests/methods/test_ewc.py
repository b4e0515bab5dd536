from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.adapted import LABELS, SomeData, flat, lora_model, move, padded, started
from pretrained import begun, config_of, save_pretrained

from peso_cli.errors import InputError
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.fisher import Held, as_state, fisher, of_state, quadratic, trained_factors
from peso_cli.methods.lora import lora_factors
from peso_cli.methods.parts import Step
from peso_cli.methods.regularizers.ewc import EWC
from peso_cli.training.layouts import Batch
from peso_cli.training.steps import label_loss

EACH = EWC(2.0, "sum", "constant", online=False, decay=1.0, fisher_examples=4)
RUNNING = replace(EACH, online=True, decay=0.5)


def one_by_one(model, factors, batches):
    """The mean over examples of their squared gradients, an example at a time, through the training step's own loss."""
    squares, rows = dict.fromkeys(factors, 0.0), 0
    for batch in batches:
        length = batch.tokens.shape[1]
        for row, (at, labels) in enumerate(
            zip(batch.at.reshape(-1, LABELS), batch.labels.reshape(-1, LABELS), strict=True)
        ):
            loss = label_loss(model.eval(), Batch(batch.tokens[row : row + 1], at - row * length, labels), 1.0)
            for name, gradient in zip(factors, torch.autograd.grad(loss, list(factors.values())), strict=True):
                squares[name] += gradient.double().square()
            rows += 1
    return {name: square / rows for name, square in squares.items()}


def check_fisher(model):
    factors = trained_factors(lora_factors(model))
    batches = [padded(model.config.vocab_size, seed=seed, length=7 + seed) for seed in range(3)]
    found = fisher(model, factors, batches)
    expected = one_by_one(model, factors, batches)
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        assert wanted.max() > 0
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-3, atol=1e-5 * float(wanted.max()), msg=name)


@pytest.mark.parametrize("stacked", [False, True])
def test_it_is_that_of_a_loop_over_examples_in_the_head_too(stacked):
    check_fisher(lora_model(stacked=stacked))


@pytest.mark.parametrize("rows", ["new_rows", "full"])
@pytest.mark.parametrize("tied", [True, False])
def test_it_is_that_of_a_loop_where_rows_of_the_vocabulary_train(tmp_path, rows, tied):
    model = begun(Evolving(), config_of(save_pretrained(tmp_path, tied=tied), trained_rows=rows))
    move(model, 0.1)
    check_fisher(model)


def test_a_model_in_bfloat16_has_one_too(tmp_path):
    model = begun(Evolving(), config_of(save_pretrained(tmp_path), dtype="bfloat16"))
    move(model, 0.1)
    found = fisher(model, trained_factors(lora_factors(model)), [padded(model.config.vocab_size)])
    assert all(f.dtype == torch.float32 and f.isfinite().all() and f.max() > 0 for f in found.values())


def test_factors_that_do_not_train_are_left_out():
    model = lora_model()
    for a, _ in lora_factors(model).values():
        a.requires_grad_(False)
    state = EACH.begin(started(model, data=SomeData())).state
    assert state
    assert all(name.endswith(".B") for name in state)


@pytest.mark.parametrize("training", [True, False])
def test_taking_it_leaves_no_trace(training):
    model = lora_model(dropout=0.5).train(training)
    for factor in flat(lora_factors(model)):
        factor.grad = torch.ones_like(factor)
    random, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    first = EACH.begin(started(model, data=SomeData())).state
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(factor.grad, torch.ones_like(factor)) for factor in flat(lora_factors(model)))
    assert not any(module._forward_hooks for module in model.modules())
    again = EACH.begin(started(model, data=SomeData())).state
    assert all(torch.equal(first[name], again[name]) for name in first)


def stages(part, count=3):
    """Begin stages one after the other, the factors moving in between; the model moves after the last, too."""
    model, state, begun_at = lora_model(), {}, []
    for stage in range(2, 2 + count):
        begun_at.append(
            {name: factor.detach().clone() for name, factor in trained_factors(lora_factors(model)).items()}
        )
        penalty = part.begin(started(model, stage=stage, data=SomeData(), state=state))
        state = penalty.state
        move(model, 0.2, seed=stage)
    return model, penalty, begun_at


def parabolas(factors, fishers, anchors):
    """The sum of F (theta - anchor)^2 / 2 as its definition has it."""
    return 0.5 * sum(
        (f[name].double() * (factors[name].double() - anchor[name].double()).square()).sum()
        for f, anchor in zip(fishers, anchors, strict=True)
        for name in factors
    )


def fishers_of(anchors):
    """The Fisher information of stages 1, 2, ... at the factors that they left."""
    found = []
    for stage, anchor in enumerate(anchors, start=1):
        model = lora_model()
        factors = trained_factors(lora_factors(model))
        with torch.no_grad():
            for name, factor in factors.items():
                factor.copy_(anchor[name])
        found.append(fisher(model, factors, SomeData().examples(stage, 4)))
    return found


def check_value(model, penalty, expected):
    factors = trained_factors(lora_factors(model))
    value, wanted = penalty.value(Step()), 2.0 * expected(factors)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-6)
    members = list(factors.values())
    pairs = zip(torch.autograd.grad(value, members), torch.autograd.grad(wanted, members), strict=True)
    for found, want in pairs:
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6 * float(want.abs().max()))


def test_each_past_stage_keeps_its_own_and_they_add_up():
    model, penalty, anchors = stages(EACH)
    fishers = fishers_of(anchors)
    check_value(model, penalty, lambda factors: parabolas(factors, fishers, anchors))
    held = of_state(penalty.state)
    assert list(held) == [1, 2, 3]
    for one, own, anchor in zip(held.values(), fishers, anchors, strict=True):
        assert all(torch.equal(one.fisher[name], own[name]) for name in own)
        assert all(torch.equal(one.anchor[name], anchor[name]) for name in own)


def test_the_running_one_decays_and_is_anchored_at_the_latest_factors():
    model, penalty, anchors = stages(RUNNING)
    first, second, third = fishers_of(anchors)
    running = {name: 0.25 * first[name] + 0.5 * second[name] + third[name] for name in first}
    check_value(model, penalty, lambda factors: parabolas(factors, [running], anchors[-1:]))
    assert list(of_state(penalty.state)) == [3]


def test_it_is_taken_of_some_examples_of_the_stage_before():
    asked = []

    class Asked(SomeData):
        def examples(self, stage, most):
            asked.append((stage, most))
            return super().examples(stage, most)

    replace(EACH, fisher_examples=3).begin(started(lora_model(), stage=5, data=Asked()))
    assert asked == [(4, 3)]


@pytest.mark.parametrize("part", [EACH, RUNNING])
def test_at_the_anchor_there_is_no_penalty_and_no_pull(part):
    model = lora_model()
    value = part.begin(started(model, data=SomeData())).value(Step())
    assert value.item() == 0.0
    assert not any(gradient.any() for gradient in torch.autograd.grad(value, flat(lora_factors(model))))


numbers = st.lists(st.floats(-1e4, 1e4, width=32), min_size=4, max_size=4)
weights = st.lists(st.floats(0, 1e4, width=32), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(numbers, st.lists(st.tuples(weights, numbers), min_size=1, max_size=4))
def test_one_parabola_is_the_sum_of_all(now, held):
    factors = {"m.A": torch.tensor(now).view(2, 2).requires_grad_()}
    pairs = [tuple({"m.A": torch.tensor(part).view(2, 2)} for part in pair) for pair in held]
    value = quadratic([Held(*pair) for pair in pairs], factors)()
    expected = parabolas(factors, *zip(*pairs, strict=True))
    largest = sum(np.dot(f, np.square(np.abs(now) + np.abs(a))) for f, a in held)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12 * largest)


def test_what_is_held_comes_back_from_a_state_with_the_stages_in_order():
    held = {stage: Held({"a.b.A": torch.tensor([stage])}, {"a.b.A": torch.tensor([-stage])}) for stage in (2, 10, 1)}
    found = of_state(as_state(held))
    assert list(found) == [1, 2, 10]
    assert all(found[s].fisher["a.b.A"].item() == s == -found[s].anchor["a.b.A"].item() for s in found)


def test_reduction_and_schedule_scale_it():
    def value(**changes):
        model = lora_model()
        penalty = replace(EACH, **changes).begin(started(model, data=SomeData()))
        move(model, 0.2)
        return penalty.value(Step((), 0.25)).item()

    assert value(reduction="mean") == pytest.approx(value() / len(lora_factors(lora_model())), rel=1e-12)
    assert value(schedule="rise") == pytest.approx(value() / 4, rel=1e-12)
    assert value(schedule="fall") == pytest.approx(value() * 3 / 4, rel=1e-12)


def test_it_needs_linear_factors_and_data():
    assert replace(EACH, strength=0.0).begin(started(lora_model(), data=SomeData())) is None
    with pytest.raises(InputError, match="embedding"):
        EACH.begin(started(lora_model(["embed_tokens", "q_proj"]), data=SomeData()))
    with pytest.raises(InputError, match="no LoRA factors"):
        EACH.begin(replace(started(lora_model(), data=SomeData()), factors={}))
    with pytest.raises(InputError) as caught:
        EACH.begin(started(lora_model()))
    assert str(caught.value) == "there are no examples of the stage before to take the Fisher information of"
