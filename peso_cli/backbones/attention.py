"""Attention of packed rows: whoever packs tokens into a row says who attends to whom, and the backbone's layers follow.

A backbone's linear layers work token by token, so that tokens of many sequences can lie side by side in one row without
padding. Only attention must know what belongs together; it is handed in with the row, layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from peso_cli.backbones.products import FastProducts
from peso_cli.backbones.rows import embeddings

_NAME = "peso_packed"


class Attend(Protocol):
    """How the tokens of one packed row attend."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        """Return what a layer's tokens gather.

        Args:
            layer: 0-based number of the layer.
            query: (1, heads, tokens, width).
            key, value: (1, key-value heads, tokens, width).
            scale: factor on the products of queries and keys.
            dropout: share of the weights that are dropped.

        Returns:
            (1, tokens, heads, width).
        """


def decoder_states(
    model: nn.Module, tokens: Tensor, positions: Tensor | None, attend: Attend | None, read: Tensor | None
) -> Tensor:
    """Return the (n, hidden) last hidden states of a backbone at the places where somebody reads them.

    Args:
        model: a causal LM, with or without adapters.
        tokens: (rows, length) token ids.
        positions: (rows, length) position ids; None counts from 0 in every row.
        attend: how the tokens of the one row attend; None is plain causal attention in every row.
        read: (n,) flat places `row * length + position`; None reads all of them, in order.
    """
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    how: dict[str, Any] = {}
    if attend is not None:
        if decoder.config._attn_implementation != _NAME:
            decoder.set_attn_implementation(_NAME)
        # A mask of four dimensions is taken as ready, so that none is built; `attend` needs none.
        how = {"attend": attend, "attention_mask": torch.empty(1, 1, 1, 1, device=tokens.device)}
    embedded = embeddings(model, tokens)
    source = {"input_ids": tokens} if embedded is None else {"inputs_embeds": embedded}
    narrowed = nullcontext() if read is None else _only_at(torch.unique(read), _behind_attention(decoder))
    with narrowed, FastProducts() if tokens.device.type == "cpu" else nullcontext():
        hidden: Tensor = decoder(**source, position_ids=positions, use_cache=False, **how).last_hidden_state
    states = hidden.flatten(0, 1)
    return states if read is None else states.index_select(0, read)


@torch.no_grad()
def packs(model: nn.Module, length: int) -> bool:
    """Whether a backbone gives sequences of up to `length` tokens the same states in one row as in rows of their own.

    One doesn't that has an attention of its own kind: a short sliding window, scores that are capped, or sinks.
    """
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    if _slides(decoder.config, length):
        return False
    size = decoder.config.vocab_size
    tokens = torch.arange(2 * length, device=model.device).view(2, -1) % size  # type: ignore[call-overload]
    positions = torch.arange(length, device=tokens.device).expand(2, -1)
    try:
        rows = decoder_states(model, tokens, None, None, None).float()
        row = decoder_states(model, tokens.view(1, -1), positions.reshape(1, -1), TwoSequences(length), None).float()
    except (ValueError, AttributeError, TypeError, RuntimeError):  # what layers of other kinds make of it
        return False
    tolerance = 1e-4 if decoder.dtype == torch.float32 else 2e-2
    return bool((row - rows).norm() <= tolerance * rows.norm())


def _slides(config: Any, length: int) -> bool:
    """Whether some layer has a window that the last of `length` tokens doesn't see all others through.

    Among many tokens the few that are out of sight change states by too little to be told from rounding.
    """
    window: int = getattr(config, "sliding_window", None) or length
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    return window < length and "sliding_attention" in layers


class TwoSequences:
    """Sequences of one length, side by side in a row, each of them causal."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        """Attend to what stands before in the same sequence."""
        q, k, v = (sequences_of(x, 0, 2, self._length) for x in (query, key, value))
        return grouped_attention(q, k, v, causal(q), scale).transpose(1, 2).flatten(0, 1)[None]


def _behind_attention(decoder: nn.Module) -> list[nn.Module]:
    """Return the parts of the last layer that work token by token and feed no other token.

    Nobody reads what they make of other places; in a small backbone they are a third of all work. Parts of other names
    just work everywhere.
    """
    layers = getattr(decoder, "layers", None)
    last = layers[-1] if isinstance(layers, nn.ModuleList) else None
    attention = getattr(last, "self_attn", None)
    parts = getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), getattr(last, "mlp", None)
    return [part for part in parts if isinstance(part, nn.Module)]


@contextmanager
def _only_at(places: Tensor, parts: Sequence[nn.Module]) -> Iterator[None]:
    """Let modules work at some flat places of their (rows, length, width) inputs only; elsewhere their output is 0."""
    shapes: dict[nn.Module, torch.Size] = {}

    def take(part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        shapes[part] = inputs[0].shape
        return (inputs[0].flatten(0, 1).index_select(0, places)[None],)

    def put(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows, length, _ = shapes[part]
        whole = output.new_zeros(rows * length, output.shape[-1])
        return whole.index_copy(0, places, output[0]).view(rows, length, -1)

    hooks = [part.register_forward_pre_hook(take) for part in parts] + [
        part.register_forward_hook(put) for part in parts
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    attend: Attend | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as the caller says; without `attend`, as plain scaled dot product attention."""
    if attend is None:
        plain: Any = sdpa_attention_forward
        return plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others)  # type: ignore[no-any-return]
    if others.get("softcap") or others.get("s_aux") is not None:
        raise ValueError("attention with capped scores or sinks can't be packed")
    return attend(int(module.layer_idx), query, key, value, scaling, dropout), None  # type: ignore[arg-type]


AttentionInterface.register(_NAME, _packed)
AttentionMaskInterface.register(_NAME, sdpa_mask)


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attend within sequences of one shape; query heads that share a key-value head become rows of one product.

    Args:
        query: (sequences, heads, queries, width).
        key, value: (sequences, key-value heads, keys, width).
        mask: (sequences or 1, 1, queries, keys) added to the scores; None lets every query see every key.
        scale: factor on the products of queries and keys.
        dropout: share of the weights that are dropped.

    Returns:
        (sequences, heads, queries, width).
    """
    count, heads, queries, width = query.shape
    shared = heads // key.shape[1]
    if shared > 1:
        query = query.reshape(count, key.shape[1], shared * queries, width)
        mask = mask if mask is None else mask.repeat(1, 1, shared, 1)
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    return out.reshape(count, heads, queries, width) if shared > 1 else out


def sequences_of(row: Tensor, start: int, count: int, length: int) -> Tensor:
    """Return `count` sequences of one length that lie side by side in a (1, heads, tokens, width) row, as a view.

    Returns:
        (count, heads, length, width).
    """
    _, heads, _, width = row.shape
    return row[0, :, start : start + count * length].reshape(heads, count, length, width).transpose(0, 1)


def causal(query: Tensor, before: int = 0) -> Tensor:
    """Return the mask of (..., queries, width) queries that stand behind `before` keys which all of them see.

    Returns:
        (1, 1, queries, before + queries), to be added to scores.
    """
    queries = query.shape[-2]
    sees = torch.ones(queries, before + queries, dtype=torch.bool, device=query.device).tril(before)
    return additive(sees, query.dtype)[None, None]


def additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a boolean mask as what is added to scores: 0 where it is true, else the lowest finite number."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
