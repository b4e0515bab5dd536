"""Scalars whose gradients are found along with them, a piece at a time, so that no graph over all pieces is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def with_gradients(value: Tensor, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """Return a scalar whose gradients by `parameters` are the given ones; None where it doesn't depend on one."""
    apply: Any = _Known.apply
    scalar: Tensor = apply(value, gradients, *parameters)
    return scalar


class _Known(torch.autograd.Function):
    """A scalar with a graph of one step."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = [None if g is None else g.to(p.dtype) for g, p in zip(gradients, parameters, strict=True)]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        if weight == 1:
            return None, None, *ctx.gradients
        return None, None, *(None if gradient is None else gradient * weight for gradient in ctx.gradients)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; afterwards each of its modules is in the mode in which it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
