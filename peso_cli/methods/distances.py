"""Distances of factors to their anchors, over stacks of factors of one shape, in float64.

In bfloat16 and, for small steps, even in float32 these figures are rounding noise: differences of nearly equal sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Distance = Callable[[Tensor], Tensor]
"""(n, rows, columns) current factors to (n,) penalties in float64."""

Compare = Callable[[Tensor], Distance]
"""(n, rows, columns) anchors of one shape to what measures the current factors against them."""


def softmax_kl(anchor: Tensor) -> Distance:
    """KL(softmax(now) || softmax(anchor)) in nats, each factor flattened to one distribution."""
    flat = anchor.double().flatten(1)
    q = flat.softmax(1)
    apply: Any = _SoftmaxKL.apply
    return lambda now: apply(now.flatten(1), flat, q)


_LARGEST = 600.0
"""Steps of which exp is still far from what a float64 can hold."""


class _SoftmaxKL(torch.autograd.Function):
    """KL = m - log1p(s), and its gradient p (d - m) with p = q exp(d) / (1 + s).

    Here d = now - anchor less its mean under q, s = sum q expm1(d) and m = sum q expm1(d) d / (1 + s). Value and
    gradient come out of one exponential, and no two nearly equal sums are subtracted: the smaller d, the smaller every
    term.
    """

    @staticmethod
    def forward(ctx: Any, now: Tensor, anchor: Tensor, q: Tensor) -> Tensor:
        d = now - anchor
        d -= torch.linalg.vecdot(q, d)[:, None]
        if (d.amax(1) > _LARGEST).any():
            value, gradient = _of_huge_steps(d, anchor)
        else:
            grown = torch.expm1(d).mul_(q)
            s = grown.sum(1)
            m = torch.linalg.vecdot(grown, d) / (1 + s)
            value, gradient = m - s.log1p(), grown.add_(q).mul_(d.sub_(m[:, None])).div_(1 + s[:, None])
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weight[:, None], None, None


def _of_huge_steps(d: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """The same where exp would overflow, in logarithms; nothing cancels there."""
    log_q = anchor.log_softmax(1)
    log_p = (log_q + d).log_softmax(1)
    p, ratio = log_p.exp(), log_p - log_q
    value = (p * ratio).sum(1)
    return value, p * (ratio - value[:, None])


def smoothed_softmax_kl(anchor: Tensor, smoothing: float) -> Distance:
    """The same with `smoothing` added to every probability of both before they are normalised again, kept >= 0."""

    def smooth(factors: Tensor) -> Tensor:
        p = factors.double().flatten(1).softmax(1) + smoothing
        return p / p.sum(-1, keepdim=True)

    log_q = smooth(anchor).log()

    def distance(now: Tensor) -> Tensor:
        p = smooth(now)
        return (p * (p.log() - log_q)).sum(-1).clamp(min=0.0)

    return distance


def squared_distance(anchor: Tensor) -> Distance:
    """(n,) squared Frobenius distances."""
    return lambda now: (now.double() - anchor).flatten(1).square().sum(-1)


def plain_distance(anchor: Tensor) -> Distance:
    """(n,) Frobenius distances; the gradient is zero where both are equal."""
    return lambda now: torch.linalg.vector_norm((now.double() - anchor).flatten(1), dim=-1)


def orthogonality_a(anchor: Tensor) -> Distance:
    """(n,) sums of squares of A Aprev^T, for A of shape (rank, in)."""
    before = anchor.double().mT
    return lambda now: (now.double() @ before).flatten(1).square().sum(-1)


def orthogonality_b(anchor: Tensor) -> Distance:
    """(n,) sums of squares of B^T Bprev, for B of shape (out, rank)."""
    before = anchor.double()
    return lambda now: (now.double().mT @ before).flatten(1).square().sum(-1)
