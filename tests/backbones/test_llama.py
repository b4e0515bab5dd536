import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from pretrained import KINDS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from peso_cli.backbones import products
from peso_cli.backbones.attention import TwoSequences, decoder_states
from peso_cli.backbones.llama import is_llama, llama_states
from peso_cli.backbones.products import OPERATIONS

VOCABULARY = 90
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama(seed=0, **settings):
    """A random Llama; norms weigh what they norm."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = {"vocab_size": VOCABULARY, "initializer_range": 0.3, **sizes, **heads, **settings}
    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 2)
    return model


def row_of(length, seed=0):
    """Token ids, some of them more than once, and positions of two sequences side by side."""
    tokens = torch.randint(3, VOCABULARY, (1, 2 * length), generator=torch.Generator().manual_seed(seed))
    tokens[0, 0] = tokens[0, -1]
    return tokens, torch.arange(length).repeat(2)[None]


@torch.no_grad()
def both(model, length, read=None, seed=0):
    """States as they are read here, and as the backbone's own layers work."""
    row, read = row_of(length, seed), None if read is None else torch.tensor(read)
    ways = llama_states, decoder_states
    return [states(model, *row, TwoSequences(length), read) for states in ways]


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3, "num_key_value_heads": 1},
        {"num_key_value_heads": 4, "tie_word_embeddings": True},
        {"rope_parameters": LLAMA_3, "rms_norm_eps": 1e-3},
    ],
    ids=["grouped", "one layer", "one key head", "ungrouped", "llama 3"],
)
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 40), st.none() | st.lists(st.integers(0, 1), min_size=1, max_size=40), st.integers(0, 99))
def test_states_are_those_of_the_backbones_own_layers(settings, onednn, length, read, seed):
    model = llama(**settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_SMALL", 0 if onednn else 1 << 40)
        found, expected = both(model, length, read, seed)
    assert found.shape == (2 * length if read is None else len(read), 32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_places_may_be_read_in_any_order_and_twice():
    model = llama()
    every = both(model, 9)[0]
    read = [17, 0, 4, 17]
    torch.testing.assert_close(both(model, 9, read)[0], every[read])


def test_nothing_that_is_given_changes():
    model, (tokens, positions), read = llama(), row_of(9), torch.tensor([3, 1])
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    given_first = [x.clone() for x in (tokens, positions, read)]
    with torch.no_grad():
        llama_states(model, tokens, positions, TwoSequences(9), read)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    for one, other in zip((tokens, positions, read), given_first, strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not OPERATIONS, reason="torch comes without oneDNN here")
def test_tokens_that_occur_again_cost_the_first_layer_nothing(monkeypatch):
    monkeypatch.setattr(products, "_SMALL", 0)
    model, positions, costs = llama(), torch.arange(64).repeat(2)[None], []
    for tokens in (torch.full((1, 128), 5), (torch.arange(128) % VOCABULARY)[None]):
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=OPERATIONS) as counter:
            llama_states(model, tokens, positions, TwoSequences(64), None)
        costs.append(counter.get_total_flops())
    assert costs[1] - costs[0] == 2 * (96 - 32) * 32 * (32 + 2 * 16)


# Which backbones are read so


@pytest.mark.parametrize("settings", [{}, {"rope_parameters": LLAMA_3}])
def test_a_llama_is(settings):
    assert is_llama(llama(**settings))


@pytest.mark.parametrize("settings", [{"hidden_act": "gelu"}, {"attention_bias": True}, {"mlp_bias": True}])
def test_one_with_other_parts_is_not(settings):
    assert not is_llama(llama(**settings))


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"llama"}))
def test_another_architecture_is_not(kind):
    make_config, make_model = KINDS[kind]
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    assert not is_llama(make_model(make_config(vocab_size=VOCABULARY, intermediate_size=32, **sizes)).eval())


def test_in_other_numbers_than_float32_it_is_not():
    assert not is_llama(llama().bfloat16())


@pytest.mark.parametrize(
    "options", [{"target_modules": ["up_proj"]}, {"target_modules": ["v_proj"], "trainable_token_indices": [4, 5]}]
)
def test_with_an_adapter_it_is_not_and_merged_it_is(options):
    adapted = get_peft_model(llama(), LoraConfig(r=2, init_lora_weights=False, **options))
    assert not is_llama(adapted)
    assert is_llama(adapted.merge_and_unload())


def test_one_that_something_else_has_a_hand_in_is_not():
    model = llama()
    model.model.layers[1].mlp.register_forward_hook(lambda module, given, output: 1.01 * output)
    assert not is_llama(model)


def test_one_that_has_diverged_is_not():
    model = llama()
    nn.init.constant_(model.model.norm.weight, torch.nan)
    assert not is_llama(model)
