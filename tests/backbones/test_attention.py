import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from populations import CATALOG, PROMPTS, random_block
from worlds import small_llama, vocabulary_of

from peso_cli.backbones.attention import additive, decoder_states, grouped_attention
from peso_cli.data.examples import examples
from peso_cli.training.layouts import Packed
from peso_cli.training.sequences import shared

VOCABULARY = vocabulary_of(CATALOG)


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


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_without_more_it_is_the_backbones_own_decoder(attention):
    model, tokens = small_llama(VOCABULARY, attention=attention), tokens_of(3, 7)
    expected = model.get_decoder()(tokens).last_hidden_state
    assert torch.equal(decoder_states(model, tokens), expected)
    embedded = model.get_input_embeddings()(tokens)
    assert torch.equal(decoder_states(model, None, embedded=embedded), expected)
    assert torch.equal(decoder_states(model, tokens, torch.arange(7).expand(3, 7)), expected)
    assert not torch.allclose(decoder_states(model, tokens, torch.arange(7).expand(3, 7) * 2), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_row_attends_as_it_is_told(attention):
    model, tokens, attend = small_llama(VOCABULARY, attention=attention), tokens_of(1, 9), Causal()
    expected = decoder_states(model, tokens)
    assert torch.allclose(decoder_states(model, tokens, attend=attend), expected, atol=1e-5)
    embedded = model.get_input_embeddings()(tokens)
    assert torch.allclose(decoder_states(model, None, None, attend, embedded), expected, atol=1e-5)
    query, shared_by_two = (1, 2, 9, 16), (1, 1, 9, 16)
    one_pass = [(layer, query, shared_by_two, shared_by_two, 16**-0.5, 0.0) for layer in (0, 1)]
    assert attend.asked == one_pass * 2


def test_dropout_reaches_a_row_in_training_only():
    model, attend = small_llama(VOCABULARY), Causal()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.25
    for training in (True, False):
        decoder_states(model.train(training), tokens_of(1, 5), attend=attend)
    assert [asked[-1] for asked in attend.asked] == [0.25, 0.25, 0.0, 0.0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_after_a_packed_row_the_backbone_is_as_it_was(tmp_path, attention):
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
        decoder_states(model, tokens_of(1, 9), attend=Causal())
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(before, plain(), strict=True))
    model.save_pretrained(tmp_path / "after")
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("before", "after")]
    assert configs[0] == configs[1]


def test_two_backbones_attend_each_in_its_own_way():
    packed, plain = small_llama(VOCABULARY), small_llama(VOCABULARY)
    batch = Packed(PROMPTS["compact"]).batch([(s, 0) for s in [shared(examples(random_block(5), "train", 5))]])
    tokens, positions = torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions)
    decoder_states(packed, tokens, positions, batch.grove.attend(tokens.device))
    assert plain.config._attn_implementation == "sdpa"
    assert torch.equal(decoder_states(packed, tokens), decoder_states(plain, tokens))


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
