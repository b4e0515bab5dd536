from dataclasses import replace

import pytest
import torch
from methods.choosing import chosen
from peft import LoraConfig, get_peft_model
from pretrained import LAYERS, LORA, begun, built, config_of, save_pretrained, train_a_little
from worlds import catalog_of, small_llama, vocabulary_of

from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.lora import lora_factors
from peso_cli.methods.parts import RegularizerStart, Step
from peso_cli.training.checkpoints import trainable

SHAPES = {"q_proj": ((2, 32), (32, 2)), "down_proj": ((2, 48), (32, 2))}
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def shapes(factors):
    return {name.rsplit(".", 1)[-1]: (tuple(a.shape), tuple(b.shape)) for name, (a, b) in factors.items()}


@pytest.mark.parametrize("rows", ["new_rows", "full"])
@pytest.mark.parametrize("tied", [True, False])
def test_factors_are_the_lora_matrices_and_not_the_rows(tmp_path, tied, rows):
    model = begun(Evolving(), config_of(save_pretrained(tmp_path, tied=tied), trained_rows=rows))
    factors = lora_factors(model)
    assert len(factors) == LAYERS * len(LORA.targets)
    assert shapes(factors) == SHAPES
    live = {id(p) for pair in factors.values() for p in pair}
    assert live == {id(p) for name, p in trainable(model).items() if "lora_" in name}


def test_every_target_of_every_layer_is_found(tmp_path):
    config = config_of(save_pretrained(tmp_path))
    factors = lora_factors(begun(Evolving(), replace(config, lora=replace(LORA, targets=ALL))))
    assert len(factors) == LAYERS * len(ALL)
    assert set(shapes(factors)) == set(ALL)


@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head", "q_proj"]])
def test_factors_of_the_embedding_and_the_head_are_found_too(targets):
    vocabulary = vocabulary_of(catalog_of([[0, 1], [1, 0]]))
    model = get_peft_model(small_llama(vocabulary), LoraConfig(r=2, target_modules=targets))
    size = vocabulary.size
    expected = {"embed_tokens": ((2, size), (32, 2)), "lm_head": ((2, 32), (size, 2)), "q_proj": SHAPES["q_proj"]}
    factors = lora_factors(model)
    assert shapes(factors) == {target: expected[target] for target in targets}
    assert {id(p) for pair in factors.values() for p in pair} == {id(p) for p in trainable(model).values()}


def test_a_model_without_an_adapter_has_no_factors(tmp_path):
    assert lora_factors(built(config_of(save_pretrained(tmp_path))).model) == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("regularizer", [chosen("softmax_kl"), chosen("l2")])
def test_a_penalty_on_the_factors_of_a_model_grows_as_it_trains(tmp_path, regularizer, dtype):
    model = begun(Evolving(), config_of(save_pretrained(tmp_path), dtype=dtype))
    penalty = regularizer.begin(RegularizerStart(model, lora_factors(model)))
    assert penalty.value(Step()).item() == 0.0
    train_a_little(model)
    after = penalty.value(Step())
    assert torch.isfinite(after)
    assert after > 0
    gradients = torch.autograd.grad(after, [p for pair in lora_factors(model).values() for p in pair])
    assert all(g.dtype == torch.float32 and torch.isfinite(g).all() for g in gradients)
