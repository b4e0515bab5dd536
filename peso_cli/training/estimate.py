"""What a stage is about to do, in a line: its sequences, how well batches are filled, and how much memory it takes."""

from __future__ import annotations

from typing import Any

from torch import nn

from peso_cli.training.packing import Packer

_KEPT_WIDTHS = 24
_KEPT_FEED_FORWARD = 8
"""How many activations of a layer's width, and of its feed-forward's, one token keeps for the backward pass: what Llama
layers with a LoRA and its dropout were measured to keep. Where whole layers train it is up to a quarter less."""

_LOGITS = 1 << 26
"""Bytes of logits and their gradient that are held at once."""


def describe(train: Packer, model: nn.Module) -> str:
    """Return a stage's training data and needs in words."""
    examples, lengths = sum(int(s.targets.sum()) for s in train.sources), train.lengths
    tokens = f"{int(lengths.min())} to {int(lengths.max())} tokens (mean {lengths.mean():.0f})"
    needs = training_memory(model, max(train.batch_tokens, int(lengths.max()))) / 2**30
    return (
        f"{examples:,} examples as {len(lengths):,} sequences of {tokens}; "
        f"batches filled to {train.fill:.0%}; about {needs:.1f} GB of memory"
    )


def training_memory(model: nn.Module, tokens: int) -> int:
    """Estimate the bytes that training holds at its peak: weights, what the optimiser keeps, a batch's activations.

    Args:
        model: what trains.
        tokens: the most tokens of a batch.
    """
    sizes = [(p.numel() * p.element_size(), p.requires_grad) for p in model.parameters()]
    weights, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    # A gradient, two moments, and a copy of the best state so far.
    return weights + 4 * trained + tokens * _bytes_per_token(model) + _LOGITS


def _bytes_per_token(model: nn.Module) -> int:
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    widths = _KEPT_WIDTHS * config.hidden_size + _KEPT_FEED_FORWARD * getattr(config, "intermediate_size", 0)
    size = next(model.parameters()).element_size()
    return int(config.num_hidden_layers * widths * size)
