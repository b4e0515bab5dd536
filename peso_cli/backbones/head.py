"""The head and its loss: cross-entropy over a large vocabulary without keeping logits or gradients that nobody needs.

A head's rows come in blocks of which some train and some don't: the pretrained rows stay as they are, the rows of the
semantic-ID tokens train, a LoRA may lie over all of them. The loss computes each block's gradient while its logits are
at hand, a few rows of hidden states at a time; blocks that don't train cost only their share of the normaliser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from peso_cli.backbones.products import LEAST, filled_down, product, with_rows
from peso_cli.backbones.rows import TrainedRows, trained_rows

_CHUNK = 1 << 23
"""Most logits held at once (32 MB in float32)."""


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head taken apart: logits are h W^T + (h A^T) (scale B)^T.

    Attributes:
        blocks: W as consecutive blocks of (rows, hidden) weights.
        down: what computes h A^T (with the adapter's dropout), None without a LoRA.
        up: (vocabulary, rank) B.
        scale: the LoRA's scaling.
    """

    blocks: tuple[Tensor, ...]
    down: nn.Module | None = None
    up: Tensor | None = None
    scale: float = 1.0


def head_of(model: nn.Module, adapter: str = "default") -> Head | None:
    """Take a backbone's head apart; None where it is of a kind (a bias, say) that must be called as it is."""
    module: Any = model.get_output_embeddings()  # type: ignore[operator]
    if hasattr(module, "token_adapter"):
        return _in_blocks(trained_rows(module, adapter))
    if adapter in getattr(module, "modules_to_save", {}):
        module = module.modules_to_save[adapter]
    if adapter in getattr(module, "lora_A", {}):
        down = nn.Sequential(module.lora_dropout[adapter], module.lora_A[adapter])
        up, scale = module.lora_B[adapter], float(module.scaling[adapter])
        plain = _plain(module.base_layer) if up.bias is None else None
        return plain and Head(plain.blocks, down, up.weight, scale)
    return _plain(module)


def _plain(module: Any) -> Head | None:
    return Head((module.weight,)) if type(module) is nn.Linear and module.bias is None else None


def _in_blocks(found: TrainedRows | None) -> Head | None:
    if found is None:
        return None
    blocks = (found.weight[: found.start], found.rows, found.weight[found.stop :])
    return Head(tuple(block for block in blocks if len(block)))


def summed_cross_entropy(
    model: nn.Module, hidden: Tensor, labels: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Return the summed cross-entropy of labels by a backbone's head, logits divided by `temperature`, in float32.

    Args:
        model: the backbone.
        hidden: (labels, hidden) states that predict the labels.
        labels: (labels,) token ids.
        temperature: divides the logits.
        weights: (labels,) float32 factor on each label's cross-entropy; None for 1.
    """
    head = head_of(model)
    if head is None:
        logits = model.get_output_embeddings()(hidden)  # type: ignore[operator]
        if weights is None:
            return functional.cross_entropy(logits.float() / temperature, labels, reduction="sum")
        return functional.cross_entropy(logits.float() / temperature, labels, reduction="none") @ weights
    return _by_head(head, hidden, labels, temperature, weights)


def cross_entropy_over_rows(
    rows: Tensor, hidden: Tensor, labels: Tensor, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Return the summed cross-entropy of labels whose logits are the products of states with rows of one matrix.

    Args:
        rows: (labels there may be, hidden) the matrix.
        hidden, labels, temperature, weights: as for `summed_cross_entropy`.
    """
    return _by_head(Head((rows,)), hidden, labels, temperature, weights)


def _by_head(head: Head, hidden: Tensor, labels: Tensor, temperature: float, weights: Tensor | None) -> Tensor:
    low = None if head.down is None else head.down(hidden)
    apply: Any = _SummedCrossEntropy.apply
    keep = torch.is_grad_enabled()
    loss: Tensor = apply(hidden, low, head.up, labels, weights, temperature, head.scale, keep, *head.blocks)
    return loss


class _SummedCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over chunks of labels; the backward pass only scales what was found."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        low: Tensor | None,
        up: Tensor | None,
        labels: Tensor,
        weights: Tensor | None,
        temperature: float,
        scale: float,
        keep: bool,
        *blocks: Tensor,
    ) -> Tensor:
        inputs = [hidden, low, up, *blocks]
        # Under no_grad, too, parameters are said to need a gradient.
        needed = [keep and ctx.needs_input_grad[i] for i in (0, 1, 2, *range(8, 8 + len(blocks)))]
        gradients = [
            torch.zeros_like(x) if need and x is not None else None for x, need in zip(inputs, needed, strict=True)
        ]
        step = filled_down(_CHUNK // sum(len(block) for block in blocks))
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), step):
            part = slice(start, min(start + step, len(hidden)))
            own, own_low = _filled_up(hidden[part]), None if low is None else _filled_up(low[part])
            logits = _logits(own, own_low, up, scale, blocks)
            total += _to_residual(logits, labels[part], None if weights is None else weights[part], temperature)
            if any(needed):
                residual = [block.to(hidden.dtype) for block in logits]
                _add_gradients(gradients, residual, own, own_low, up, scale, blocks, part)
        ctx.save_for_backward(*[g for g in gradients if g is not None])
        ctx.needed, ctx.temperature = needed, temperature
        return total

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        found = iter(ctx.saved_tensors)
        scale = weight / ctx.temperature
        scaled = [next(found).mul(scale) if need else None for need in ctx.needed]
        return (*scaled[:3], *[None] * 5, *scaled[3:])


def _filled_up(states: Tensor) -> Tensor:
    """Fill states up with zeros (see `products`), the better once than for each product."""
    return with_rows(states) if states.device.type == "cpu" and len(states) > LEAST else states


def _logits(
    hidden: Tensor, low: Tensor | None, up: Tensor | None, scale: float, blocks: Sequence[Tensor]
) -> list[Tensor]:
    """Return the (rows, block) logits of each block in float32."""
    found = [product(hidden, block.detach()) for block in blocks]
    if low is not None and up is not None:
        for logits, part in zip(found, _by_block(up, blocks), strict=True):
            logits.add_(product(low, part), alpha=scale)
    return [logits.float() for logits in found]


def _by_block(rows: Tensor, blocks: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.split(rows, [len(block) for block in blocks])


def _to_residual(logits: list[Tensor], labels: Tensor, weights: Tensor | None, temperature: float) -> Tensor:
    """Return the summed loss; the blocks' logits turn into its gradient but for the temperature.

    That is softmax, less 1 at labels, times each label's weight; 0 in rows behind the labels'.
    """
    for block in logits:
        block[len(labels) :] = 0
    logits = [block[: len(labels)] for block in logits]
    if temperature != 1:
        torch._foreach_div_(logits, temperature)
    at = list(_places(labels, logits))
    own = torch.stack([b.gather(1, place).mul_(here) for b, (place, here) in zip(logits, at, strict=True)]).sum(0)
    top = torch.stack([block.amax(1, keepdim=True) for block in logits]).amax(0)
    mass = torch.stack([block.sub_(top).exp_().sum(1, keepdim=True) for block in logits]).sum(0)
    for block, (place, here) in zip(logits, at, strict=True):
        block.div_(mass).scatter_add_(1, place, -here)
        if weights is not None:
            block *= weights[:, None]
    losses = (mass.log() + top - own)[:, 0]
    return losses.sum() if weights is None else losses @ weights


def _places(labels: Tensor, logits: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each block (rows, 1) columns of labels, and 1 where the label is in the block, else 0."""
    start = 0
    for block in logits:
        column = labels[:, None] - start
        yield column.clamp(0, block.shape[1] - 1), ((column >= 0) & (column < block.shape[1])).to(block.dtype)
        start += block.shape[1]


def _add_gradients(
    gradients: Sequence[Tensor | None],
    residual: Sequence[Tensor],
    hidden: Tensor,
    low: Tensor | None,
    up: Tensor | None,
    scale: float,
    blocks: Sequence[Tensor],
    part: slice,
) -> None:
    of_hidden, of_low, of_up, *of_blocks = gradients
    count = part.stop - part.start
    for columns, block, of_block in zip(residual, blocks, of_blocks, strict=True):
        if of_hidden is not None:
            of_hidden[part].add_(product(columns, block.detach().mT)[:count])
        if of_block is not None:
            of_block.add_(product(columns.mT, hidden.mT))
    if low is None or up is None:
        return
    of_parts = [None] * len(blocks) if of_up is None else _by_block(of_up, blocks)
    for columns, rows, of_rows in zip(residual, _by_block(up, blocks), of_parts, strict=True):
        if of_low is not None:
            of_low[part].add_(product(columns, rows.mT)[:count], alpha=scale)
        if of_rows is not None:
            of_rows.add_(product(columns.mT, low.mT), alpha=scale)
