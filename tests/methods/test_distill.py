import copy
from dataclasses import replace

import pytest
import torch
from methods.adapted import lora_model, move, padded, started
from pretrained import begun, config_of, save_pretrained

from peso_cli.methods import distillation
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.methods.parts import Step
from peso_cli.methods.regularizers.distill import Distill
from peso_cli.training.checkpoints import trainable
from peso_cli.training.steps import label_loss

PART = Distill(2.0, "constant", 1.5)


@pytest.fixture(params=["lora", "stacked", "new rows", "full rows", "untied rows", "all weights"])
def model(request, tmp_path):
    """A model that trains in one of the ways that adapters know."""
    match request.param:
        case "lora" | "stacked":
            return lora_model(stacked=request.param == "stacked")
        case "all weights":
            return begun(FullWeights(), config_of(save_pretrained(tmp_path)))
        case way:
            folder = save_pretrained(tmp_path, tied=way != "untied rows")
            return begun(Evolving(), config_of(folder, trained_rows="full" if way == "full rows" else "new_rows"))


def batches_of(model, count=2):
    return [padded(model.config.vocab_size, seed=seed, length=7 + seed) for seed in range(count)]


def naive(model, teacher, batches, temperature):
    """T^2 KL(teacher || model), mean over labels, from whole logits."""
    total, labels = 0.0, 0
    for batch in batches:
        tokens, at = torch.from_numpy(batch.tokens), torch.from_numpy(batch.at)
        new, old = (
            (one.eval()(input_ids=tokens).logits.flatten(0, 1)[at].double() / temperature).log_softmax(1)
            for one in (model, teacher)
        )
        total = total + (old.exp() * (old - new)).sum()
        labels += len(at)
    return temperature**2 * total / labels


def test_value_and_gradients_are_those_of_whole_logits(model):
    teacher, batches = copy.deepcopy(model), batches_of(model)
    penalty = PART.begin(started(model))
    move(model, 0.1)
    value, expected = penalty.value(Step(batches)), 2.0 * naive(model, teacher, batches, 1.5)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    parameters = trainable(model)
    found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    wanted = torch.autograd.grad(expected, list(parameters.values()), allow_unused=True)
    for name, own, want in zip(parameters, found, wanted, strict=True):
        assert (own is None) is (want is None), name
        if own is not None:
            assert own.dtype == want.dtype
            torch.testing.assert_close(own, want, rtol=2e-3, atol=2e-4 * float(want.abs().max()), msg=name)


def test_a_model_that_still_is_its_teacher_is_not_pulled(model):
    penalty, batches = PART.begin(started(model)), batches_of(model)
    parameters = list(trainable(model).values())
    value = penalty.value(Step(batches))
    assert abs(value.item()) < 1e-10
    loss = torch.autograd.grad(label_loss(model, batches[0], 1.0), parameters, allow_unused=True)
    largest = max(float(g.abs().max()) for g in loss if g is not None)
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    assert all(g is None or float(g.abs().max()) < 1e-5 * largest for g in found)


def test_asking_it_leaves_no_trace_and_gives_the_same_again():
    model = lora_model(dropout=0.5).train()
    penalty, batches = PART.begin(started(model)), batches_of(model)
    move(model, 0.1)
    before = {name: p.detach().clone() for name, p in trainable(model).items()}
    random, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    values = [penalty.value(Step(batches)).item() for _ in range(2)]
    assert values[0] == values[1] > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in trainable(model).items())


def test_the_teacher_stays_what_the_stage_began_with_while_training_goes_on():
    model = lora_model()
    teacher, batches = copy.deepcopy(model), batches_of(model)
    penalty = PART.begin(started(model))
    optimiser = torch.optim.SGD(trainable(model).values(), lr=0.05)
    for batch in batches:
        (label_loss(model, batch, 1.0) / len(batch.at)).backward()
        penalty.value(Step((batch,))).backward()
        optimiser.step()
        optimiser.zero_grad()
    expected = 2.0 * naive(model, teacher, batches, 1.5)
    assert penalty.value(Step(batches)).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_few_labels_at_a_time_give_what_all_at_once_give(model, monkeypatch):
    penalty, batches, parameters = PART.begin(started(model)), batches_of(model), list(trainable(model).values())
    move(model, 0.1)

    def found():
        value = penalty.value(Step(batches))
        return [value.detach(), *torch.autograd.grad(value, parameters, allow_unused=True)]

    whole = found()
    monkeypatch.setattr(distillation, "_CHUNK", 2 * model.config.vocab_size)
    for part, expected in zip(found(), whole, strict=True):
        assert (part is None) is (expected is None)
        if part is not None:
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_huge_steps_give_finite_figures(size):
    model = lora_model(["lm_head"])
    penalty = PART.begin(started(model))
    move(model, size)
    value = penalty.value(Step(batches_of(model)))
    gradients = torch.autograd.grad(value, list(trainable(model).values()))
    assert value.item() > 0
    assert all(part.isfinite().all() for part in (value, *gradients))


def test_a_model_in_bfloat16_is_held_too(tmp_path):
    model = begun(Evolving(), config_of(save_pretrained(tmp_path), dtype="bfloat16"))
    penalty = PART.begin(started(model))
    move(model, 0.1)
    value = penalty.value(Step(batches_of(model)))
    gradients = torch.autograd.grad(value, list(trainable(model).values()))
    assert value.item() > 0
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def test_strength_and_schedule_scale_it_and_none_is_no_penalty():
    def value(**changes):
        model = lora_model()
        penalty = replace(PART, **changes).begin(started(model))
        move(model, 0.1)
        return penalty.value(Step(batches_of(model), 0.25)).item()

    assert value(strength=6.0) == pytest.approx(3 * value(), rel=1e-12)
    assert value(schedule="rise") == pytest.approx(value() / 4, rel=1e-12)
    assert value(schedule="fall") == pytest.approx(value() * 3 / 4, rel=1e-12)
    assert replace(PART, strength=0.0).begin(started(lora_model())) is None
