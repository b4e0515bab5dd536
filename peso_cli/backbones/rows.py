"""Vocabulary rows that train beside rows that don't, taken apart: nobody copies or differentiates all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class TrainedRows:
    """Rows of an embedding or a head that train in place of those of its weight; they lie side by side.

    Attributes:
        weight: (vocabulary, hidden) the whole weight, of which rows `start:stop` are out of use.
        start, stop: which rows train.
        rows: (stop - start, hidden) what they hold now.
    """

    weight: Tensor
    start: int
    stop: int
    rows: Tensor


def trained_rows(module: nn.Module, adapter: str = "default") -> TrainedRows | None:
    """Take an embedding or a head apart in which only some rows train; None for any other module."""
    layer: Any = getattr(module, "token_adapter", None)
    if layer is None or getattr(layer.base_layer, "bias", None) is not None:
        return None
    if type(layer.base_layer) not in (nn.Embedding, nn.Linear):
        return None
    indices, weight = layer.token_indices[adapter], layer.base_layer.weight
    start, stop = indices[0], indices[-1] + 1
    if indices != list(range(start, stop)):
        return None
    # They train in float32, beside weights that may be in bfloat16.
    return TrainedRows(weight, start, stop, layer.trainable_tokens_delta[adapter].to(weight.dtype))


def embeddings(model: nn.Module, tokens: Tensor) -> Tensor | None:
    """Return (..., hidden) embeddings where only some rows train; None where the backbone should look them up."""
    found = trained_rows(model.get_input_embeddings())  # type: ignore[operator]
    if found is None:
        return None
    trains = (tokens >= found.start) & (tokens < found.stop)
    own = functional.embedding((tokens - found.start).clamp(0, len(found.rows) - 1), found.rows)
    return torch.where(trains[..., None], own, functional.embedding(tokens, found.weight.detach()))
