import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from populations import CATALOG, PROMPTS, TEMPLATES, random_block
from worlds import small_llama, vocabulary_of

from peso_cli.data.examples import examples
from peso_cli.methods.lora import lora_factors
from peso_cli.methods.moments import second_moments
from peso_cli.training.checkpoints import trainable
from peso_cli.training.layouts import Packed, Padded
from peso_cli.training.sequences import one_by_one, shared

TARGETS = ["q_proj", "o_proj", "down_proj", "lm_head"]


def adapted(name, targets=TARGETS, dropout=0.0):
    """A small model whose LoRA has learnt something, and its prompt."""
    model = small_llama(vocabulary_of(CATALOG, TEMPLATES[name]))
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, lora_dropout=dropout, target_modules=targets))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, PROMPTS[name]


def batches_of(prompt, kind, users=3):
    """Batches of a few users' examples, each of another length."""
    found = examples(random_block(users, seed=2, events=9), "train", 5)
    layout, sequences = (Packed(prompt), shared(found)) if kind == "packed" else (Padded(prompt), one_by_one(found))
    rows = np.array_split(np.arange(len(sequences)), 2)
    return [layout.batch([(sequences, int(row)) for row in some]) for some in rows]


def sights(batch):
    """For each place, the places that it sees, itself last."""
    rows, length = batch.tokens.shape
    if batch.grove is None:
        return [list(range(row * length, row * length + p + 1)) for row in range(rows) for p in range(length)]
    head = batch.grove.runs[0][0].head
    found, before = [list(range(p + 1)) for p in range(head)], head
    for tree in (tree for tree, count in batch.grove.runs for _ in range(count)):
        found += [[int(p) if p < head else before + int(p) - head for p in np.flatnonzero(row)] for row in tree.sees]
        before += len(tree)
    return found


@torch.no_grad()
def inputs_at_the_end(model, tokens):
    """What each module with factors reads at the last of some tokens that go through the model by themselves."""
    found = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda m, x, name=name: found.update({name: x[0][0, -1]}))
        for name in lora_factors(model)
    ]
    model(input_ids=torch.from_numpy(tokens)[None])
    for hook in hooks:
        hook.remove()
    return found


def brute_force(model, prompt, batches):
    """The second moments, one token at a time."""
    sums = {
        name: torch.zeros(a.shape[1], a.shape[1], dtype=torch.float64) for name, (a, _) in lora_factors(model).items()
    }
    counts = dict.fromkeys(sums, 0)
    for batch in batches:
        tokens, asked = batch.tokens.reshape(-1), np.bincount(batch.at, minlength=batch.tokens.size)
        for place, seen in enumerate(sights(batch)):
            if tokens[place] == prompt.pad:
                continue
            for name, x in inputs_at_the_end(model, tokens[seen]).items():
                times = int(asked[place]) if name.endswith("lm_head") else 1
                sums[name] += times * torch.outer(x.double(), x.double())
                counts[name] += times
    return {name: total / counts[name] for name, total in sums.items()}


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_second_moments_are_those_of_tokens_that_go_through_the_model_by_themselves(kind, name):
    model, prompt = adapted(name)
    batches = batches_of(prompt, kind)
    found = second_moments(model, lora_factors(model), batches)
    expected = brute_force(model, prompt, batches)
    assert found.keys() == expected.keys()
    assert {module.rsplit(".", 1)[-1] for module in found} == set(TARGETS)
    for module, moment in found.items():
        assert moment.dtype == torch.float64
        torch.testing.assert_close(moment, expected[module], rtol=1e-4, atol=1e-5 * float(expected[module].trace()))


def test_the_model_stays_in_its_mode_and_dropout_is_off():
    model, prompt = adapted("compact", dropout=0.5)
    batches = batches_of(prompt, "packed")
    model.train()
    model.get_submodule("base_model.model.model.layers.0").eval()
    modes = [module.training for module in model.modules()]
    one, other = (second_moments(model, lora_factors(model), batches) for _ in range(2))
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_hook_and_no_gradient_stays_behind():
    model, prompt = adapted("instruct")
    second_moments(model, lora_factors(model), batches_of(prompt, "packed"))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_batches_there_are_zeros():
    model, _ = adapted("compact", ["down_proj"])
    for moment in second_moments(model, lora_factors(model), []).values():
        assert torch.equal(moment, torch.zeros(48, 48, dtype=torch.float64))


def test_the_mean_is_over_tokens_of_all_batches():
    model, prompt = adapted("instruct")
    first, second = batches_of(prompt, "packed")
    together, *alone = (second_moments(model, lora_factors(model), b) for b in ([first, second], [first], [second]))
    sizes = first.tokens.size, second.tokens.size
    for name, moment in together.items():
        weights = (len(first.at), len(second.at)) if name.endswith("lm_head") else sizes
        mean = sum(w * one[name] for w, one in zip(weights, alone, strict=True)) / sum(weights)
        torch.testing.assert_close(moment, mean, rtol=1e-10, atol=1e-12)
