"""Llama's decoder for reading alone: without gradients, and with what stands between its products done in place.

In a small backbone the passes between products (norms, rotations, activations, sums), each into memory of its own, take
longer than attention. Here they go over what a product has just written; and the first layer's products, which hang on
nothing but a token's id, are made once for tokens that stand in a row again and again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaModel

from peso_cli.backbones.attention import Attend, TwoSequences, decoder_states
from peso_cli.backbones.products import linear, with_rows

_LENGTH = 16
"""Tokens of the sequences on which a backbone is compared with its own layers."""


def llama_states(model: nn.Module, tokens: Tensor, positions: Tensor, attend: Attend, read: Tensor | None) -> Tensor:
    """Return what `decoder_states` returns, of one row and a backbone that `is_llama`, without gradients.

    Args:
        model: a causal LM.
        tokens: (1, length) token ids.
        positions: (1, length) position ids.
        attend: how the tokens attend.
        read: (n,) places that are read; None reads all of them, in order.
    """
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    count, last = tokens.shape[1], decoder.layers[-1]
    kinds, kind = torch.unique(tokens[0], return_inverse=True)
    of_kinds = with_rows(functional.embedding(kinds, decoder.embed_tokens.weight))
    kind, places = with_rows(kind), None if read is None else with_rows(read)
    turns = _turns(decoder.rotary_emb(of_kinds, with_rows(positions[0])[None]))
    states = of_kinds.index_select(0, kind)
    for number, layer in enumerate(decoder.layers):
        attention, only = layer.self_attn, places if layer is last else None
        if number == 0:
            normed = _normed(of_kinds, layer.input_layernorm)
            parts = [part.index_select(0, kind) for part in _projected(attention, normed, None)]
        else:
            parts = _projected(attention, _normed(states, layer.input_layernorm), only)
        parts = [_rotated(parts[0], turns), _rotated(parts[1], turns), parts[2]]
        query, key, value = (part[:count].transpose(0, 1)[None] for part in parts)
        gathered = with_rows(attend(number, query, key, value, attention.scaling, 0.0)[0].flatten(1))
        if only is not None:
            gathered, states = gathered.index_select(0, only), states.index_select(0, only)
        states += linear(gathered, attention.o_proj.weight)
        states += _gated(_normed(states, layer.post_attention_layernorm), layer.mlp)
    return _normed(states, decoder.norm)[: count if read is None else len(read)]


@torch.inference_mode()
def is_llama(model: nn.Module) -> bool:
    """Whether `llama_states` can stand in for a backbone's own layers.

    That is on a CPU in float32, where its parts are those of a Llama without adapters, and where it comes to the same.
    """
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    if type(decoder) is not LlamaModel or decoder.device.type != "cpu" or decoder.dtype != torch.float32:
        return False
    linears = [part for layer in decoder.layers for part in _linears(layer)]
    plain = type(decoder.embed_tokens) is nn.Embedding and all(type(part) is nn.Linear for part in linears)
    if not plain or decoder.config.hidden_act != "silu" or any(part.bias is not None for part in linears):
        return False
    tokens = torch.arange(2 * _LENGTH)[None] % decoder.config.vocab_size
    positions, attend = torch.arange(_LENGTH).repeat(2)[None], TwoSequences(_LENGTH)
    expected = decoder_states(model, tokens, positions, attend, None)
    found = llama_states(model, tokens, positions, attend, None)
    return bool((found - expected).norm() <= 1e-4 * expected.norm())


def _linears(layer: Any) -> list[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*projections, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def _turns(rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Return (n, 1, width / 2) complex numbers for the (1, n, width) cosines and sines of angles, each there twice."""
    return torch.complex(*(each[0, :, None].chunk(2, dim=-1)[0] for each in rotation))


def _rotated(pairs: Tensor, turns: Tensor) -> Tensor:
    """Return (n, heads, width) vectors of `_pairs`, which are rotated in place."""
    return torch.view_as_real(pairs.mul_(turns)).flatten(2)


def _normed(states: Tensor, norm: Any) -> Tensor:
    """Return (n, hidden) states over their root mean square, times the norm's weight."""
    length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    factor = length.square_().div_(states.shape[-1]).add_(norm.variance_epsilon).rsqrt_()
    normed: Tensor = (states * factor).mul_(norm.weight)
    return normed


def _projected(attention: Any, normed: Tensor, only: Tensor | None) -> list[Tensor]:
    """Return queries, keys (both as `_pairs`) and values of (n, hidden) states.

    Queries are those of some places only, and 0 elsewhere.
    """
    at = normed if only is None else normed.index_select(0, only)
    query, key = (
        _pairs(linear(states, part.weight).view(len(states), -1, attention.head_dim))
        for states, part in ((at, attention.q_proj), (normed, attention.k_proj))
    )
    if only is not None:
        query = query.new_zeros(len(normed), *query.shape[1:]).index_copy_(0, only, query)
    return [query, key, linear(normed, attention.v_proj.weight).view(len(normed), -1, attention.head_dim)]


def _pairs(vectors: Tensor) -> Tensor:
    """Return (n, heads, width / 2) complex numbers for (n, heads, width) vectors: what is rotated together.

    As real numbers they stand in another order than before, of queries and of keys alike: their products are the same.
    """
    return torch.complex(*vectors.chunk(2, dim=-1))


def _gated(normed: Tensor, mlp: Any) -> Tensor:
    gate = functional.silu(linear(normed, mlp.gate_proj.weight), inplace=True)
    return linear(gate.mul_(linear(normed, mlp.up_proj.weight)), mlp.down_proj.weight)
