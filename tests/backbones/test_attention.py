import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from worlds import random_catalog, small_llama, vocabulary_of

from peso_cli.backbones import products
from peso_cli.backbones.attention import additive, decoder_states, grouped_attention, packs, sequences_of
from peso_cli.backbones.products import OPERATIONS

VOCABULARY = vocabulary_of(random_catalog(30, (3, 4, 5)))


def tokens_of(rows, length, seed=0):
    """Random token ids."""
    return torch.from_numpy(np.random.default_rng(seed).integers(3, VOCABULARY.size, (rows, length)))


class Causal:
    """Plain causal attention within the one row, which remembers how it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, layer, query, key, value, scale, dropout):
        self.asked.append((layer, query.shape, key.shape, value.shape, scale, dropout))
        length = query.shape[2]
        causal = additive(torch.ones(length, length).tril().bool(), query.dtype)[None, None]
        return grouped_attention(query, key, value, causal, scale, dropout).transpose(1, 2)


ATTENTIONS = pytest.mark.parametrize("attention", ["sdpa", "eager"])
places = st.lists(st.integers(0, 20), min_size=1, max_size=25)


def states_of(model, tokens, read=None, positions=None, attend=None):
    """The states at some places, or at all of them."""
    read = torch.arange(tokens.numel()) if read is None else torch.tensor(read)
    return decoder_states(model, tokens, positions, attend, read)


def plain_states(model, tokens, read=None, positions=None):
    """The same by the backbone's own decoder."""
    every = model.get_decoder()(tokens, position_ids=positions).last_hidden_state.flatten(0, 1)
    return every if read is None else every[torch.tensor(read)]


def close(one, other):
    return torch.allclose(one, other, atol=1e-5)


@ATTENTIONS
def test_states_are_those_of_the_backbones_own_decoder(attention):
    model, tokens = small_llama(VOCABULARY, attention=attention), tokens_of(3, 7)
    expected = plain_states(model, tokens)
    assert close(states_of(model, tokens), expected)
    assert close(states_of(model, tokens, positions=torch.arange(7).expand(3, 7)), expected)


@ATTENTIONS
def test_a_row_attends_as_it_is_told(attention):
    model, tokens, attend = small_llama(VOCABULARY, attention=attention), tokens_of(1, 9), Causal()
    expected = plain_states(model, tokens)
    assert close(states_of(model, tokens, attend=attend), expected)
    assert close(states_of(model, tokens, [8, 2], attend=attend), expected[[8, 2]])
    query, shared_by_two = (1, 2, 9, 16), (1, 1, 9, 16)
    one_pass = [(layer, query, shared_by_two, shared_by_two, 16**-0.5, 0.0) for layer in (0, 1)]
    assert attend.asked == one_pass * 2


def test_a_row_has_positions_of_its_own():
    model, tokens = small_llama(VOCABULARY), tokens_of(1, 9)
    stretched = 2 * torch.arange(9)[None]
    found = states_of(model, tokens, positions=stretched, attend=Causal())
    assert close(found, plain_states(small_llama(VOCABULARY), tokens, positions=stretched))
    assert not close(found, plain_states(model, tokens))


def kinds_of_models():
    """A Llama, one with a LoRA on all that works token by token, and one that shapes queries further."""
    targets = ["q_proj", "o_proj", "up_proj", "down_proj"]
    torch.manual_seed(1)
    lora = get_peft_model(small_llama(VOCABULARY), LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    qwen = Qwen3ForCausalLM(Qwen3Config(vocab_size=VOCABULARY.size, initializer_range=0.3, **sizes, **heads))
    return {"llama": small_llama(VOCABULARY), "lora": lora, "qwen3": qwen}


MODELS = kinds_of_models()


@pytest.mark.parametrize("kind", sorted(MODELS))
@settings(max_examples=15, deadline=None)
@given(places)
def test_any_places_can_be_read_in_any_order(kind, read):
    model, tokens = MODELS[kind], tokens_of(3, 7)
    results = []
    for states in (states_of, plain_states):
        model.zero_grad(set_to_none=True)
        found = states(model, tokens, read)
        (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
        results.append((found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (found, gradients), (expected, wanted) = results
    assert close(found, expected)
    assert gradients.keys() == wanted.keys()
    largest = max(gradient.norm() for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert (gradients[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6 * largest, name


def test_what_nobody_reads_costs_less():
    costs = []
    for read in ([5], list(range(21))):
        with FlopCounterMode(display=False) as counter:
            states_of(MODELS["llama"], tokens_of(3, 7), read)
        costs.append(counter.get_total_flops())
    assert costs[0] < 0.7 * costs[1]


def states_and_gradients(model, tokens):
    """The states at two places, and how a weighted sum of them depends on the parameters."""
    model.zero_grad()
    states = states_of(model, tokens, [5, 20])
    (states @ torch.linspace(-1, 2, states.shape[1])).sum().backward()
    return [states.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.skipif(not OPERATIONS, reason="torch comes without oneDNN here")
def test_states_and_gradients_are_the_same_by_onednn(monkeypatch):
    model, tokens = small_llama(VOCABULARY), tokens_of(3, 7)
    expected = states_and_gradients(model, tokens)
    monkeypatch.setattr(products, "_SMALL", 0)
    with FlopCounterMode(display=False, custom_mapping=OPERATIONS) as counter:
        found = states_and_gradients(model, tokens)
    assert not {"aten.mm", "aten.addmm"} & {str(op) for op in counter.get_flop_counts()["Global"]}
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


def test_dropout_reaches_a_row_in_training_only():
    model, attend = small_llama(VOCABULARY), Causal()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.25
    for training in (True, False):
        states_of(model.train(training), tokens_of(1, 5), attend=attend)
    assert [asked[-1] for asked in attend.asked] == [0.25, 0.25, 0.0, 0.0]


def broken(*_):
    """Attention that fails."""
    raise RuntimeError("out of memory")


@ATTENTIONS
def test_after_packed_rows_the_backbone_is_as_it_was(tmp_path, attention):
    model, tokens = small_llama(VOCABULARY, attention=attention), tokens_of(3, 7)
    padding = torch.ones_like(tokens)
    padding[0, :3] = padding[1, :1] = 0

    def plain():
        masked = model(tokens, attention_mask=padding).logits[padding.bool()]
        cached = model(tokens[:, :4], use_cache=True).past_key_values
        later = model(tokens[:, 4:], past_key_values=cached).logits
        drawn = model.generate(tokens, max_new_tokens=3, do_sample=False, attention_mask=padding).float()
        return [model(tokens).logits, masked, later, drawn]

    with torch.no_grad():
        before = plain()
        model.save_pretrained(tmp_path / "before")
        states_of(model, tokens_of(1, 9), [3], attend=Causal())
        with pytest.raises(RuntimeError, match="out of memory"):
            states_of(model, tokens_of(1, 9), [3], attend=broken)
        assert all(close(one, other) for one, other in zip(before, plain(), strict=True))
    model.save_pretrained(tmp_path / "after")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after")]
    assert configs[0] == configs[1]


def test_two_backbones_attend_each_in_its_own_way():
    packed, plain = small_llama(VOCABULARY), small_llama(VOCABULARY)
    states_of(packed, tokens_of(1, 9), attend=Causal())
    assert plain.config._attn_implementation == "sdpa"
    assert close(states_of(packed, tokens_of(3, 7)), states_of(plain, tokens_of(3, 7)))


# Which backbones take packed rows


GROUPED = {"num_key_value_heads": 2, "intermediate_size": 48, "head_dim": 8}
WHOLE_SCORES = {**GROUPED, "attn_logit_softcapping": None}


def tiny(kind, dtype=torch.float32, **more):
    """A random model of a kind whose attention makes much of a difference."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    config = AutoConfig.for_model(kind, **sizes, **special, initializer_range=0.3, **more)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", GROUPED),
        ("qwen3", GROUPED),
        ("gpt2", {}),
        ("phi3", {"num_key_value_heads": 2, "intermediate_size": 48}),
        ("mistral", {**GROUPED, "sliding_window": None}),
        ("mistral", {**GROUPED, "sliding_window": 30}),
        ("gemma2", WHOLE_SCORES),
        ("qwen2", {**GROUPED, "sliding_window": 20, "use_sliding_window": False}),
        ("qwen2", {**GROUPED, "sliding_window": 20, "use_sliding_window": True, "max_window_layers": 2}),
        ("lfm2", {**GROUPED, "layer_types": ["full_attention", "full_attention"]}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backbones_that_attend_to_all_before_take_packed_rows(kind, more, dtype):
    model = tiny(kind, dtype, **more)
    assert packs(model, 30)
    assert packs(model, 1)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mistral", {**GROUPED, "sliding_window": 29}),  # shorter than the sequences
        ("gemma2", {**WHOLE_SCORES, "sliding_window": 29}),  # in one of two layers
        ("qwen2", {**GROUPED, "sliding_window": 20, "use_sliding_window": True, "max_window_layers": 1}),
        ("gemma2", GROUPED),  # capped scores
        ("gpt_oss", {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}),  # sinks
        ("lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"]}),  # tokens that mix beside attention
        ("gptj", {"rotary_dim": 4}),  # attention that nobody can tell anything
        ("bloom", {}),
        ("openai-gpt", {}),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backbones_that_attend_in_another_way_do_not(kind, more, dtype):
    assert not packs(tiny(kind, dtype, **more), 30)


def test_a_window_is_short_or_long_by_the_sequences():
    model = tiny("mistral", **GROUPED, sliding_window=30)
    assert packs(model, 30)
    assert not packs(model, 31)
    tokens = torch.arange(31)[None]
    assert not close(plain_states(model, tokens), plain_states(tiny("mistral", **GROUPED, sliding_window=31), tokens))


def test_what_was_asked_leaves_no_trace():
    model, fresh, tokens = tiny("llama", **GROUPED), tiny("llama", **GROUPED), torch.arange(21).view(3, 7)
    assert packs(model.requires_grad_(True), 30)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model(tokens).logits, fresh(tokens).logits)
    assert plain_states(model, tokens).requires_grad


counts, widths = st.integers(1, 4), st.integers(1, 5)


@settings(max_examples=60, deadline=None)
@given(counts, counts, counts, counts, st.integers(1, 6), widths, st.floats(0.1, 2), st.data())
def test_grouped_attention_is_attention(sequences, groups, sharing, queries, keys, width, scale, data):
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    query = torch.randn(sequences, groups * sharing, queries, width, generator=random, dtype=torch.float64)
    key, value = torch.randn(2, sequences, groups, keys, width, generator=random, dtype=torch.float64)
    sees = torch.rand(data.draw(st.sampled_from([1, sequences])), 1, queries, keys, generator=random) < 0.5
    sees[..., 0] = True
    every_key, every_value = (x.repeat_interleave(sharing, dim=1) for x in (key, value))
    scores = query @ every_key.mT * scale
    for mask, seen in ((None, torch.tensor(True)), (additive(sees, query.dtype), sees)):
        found = grouped_attention(query, key, value, mask, scale)
        assert torch.allclose(found, scores.masked_fill(~seen, -torch.inf).softmax(-1) @ every_value)


@pytest.mark.parametrize("sharing", [1, 2])
def test_grouped_attention_drops_out(sharing):
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 3, 5), *torch.randn(2, 2, 4 // sharing, 6, 5)
    whole = grouped_attention(query, key, value, None, 0.5)
    dropped = torch.stack([grouped_attention(query, key, value, None, 0.5, 0.2) for _ in range(1000)])
    assert not torch.allclose(dropped[0], whole)
    assert (dropped.mean(0) - whole).abs().max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_mask_is_zero_or_the_lowest_number(dtype):
    mask = additive(torch.tensor([[True, False]]), dtype)
    assert mask.dtype == dtype
    assert mask.tolist() == [[0.0, torch.finfo(dtype).min]]


@given(st.integers(1, 3), st.integers(0, 5), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_sequences_that_lie_side_by_side_are_taken_as_they_lie(heads, start, count, length, behind):
    row = torch.randn(1, heads, start + count * length + behind, 2)
    found = sequences_of(row, start, count, length)
    assert found.shape == (count, heads, length, 2)
    for number, sequence in enumerate(found):
        begin = start + number * length
        assert torch.equal(sequence, row[0, :, begin : begin + length])
    assert found.data_ptr() == row[:, :, start:].data_ptr()
