"""Distances of vectors to their anchors, each found along with its gradient.

In bfloat16 and, for small steps, even in float32 the textbook formulas are rounding noise: differences of nearly equal
sums. Those here don't subtract such sums, so that float32 serves for the elements; what is left for each vector is
worked out in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from peso_cli.methods.vectors import Vectors

Distance = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A block of current values and (vectors,) weights to penalties and a gradient.

The (vectors,) penalties are in float64; the gradient, a new block, is that of their sum with these weights. What it
holds outside the vectors is ignored.
"""

Compare = Callable[[Vectors, Tensor], Distance]
"""A layout and a block of anchors to what measures current values against them."""

Formula = Callable[[Tensor, Tensor], Tensor]
"""(n, length) current vectors and anchors in float64 to (n,) penalties, in differentiable operations."""


_SHARED = 800.0
"""How many times half the variance of a step the square of its mean may be for float32 to tell the two apart."""


def squared(vectors: Vectors, anchor: Tensor) -> Distance:
    """||v - anchor||^2."""
    scratch = torch.empty_like(anchor)

    def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        step = now - anchor
        squares = vectors.sum(torch.mul(step, step, out=scratch))
        return squares, step.mul_(vectors.spread(2 * weights, step))

    return distance


def plain(vectors: Vectors, anchor: Tensor) -> Distance:
    """||v - anchor||; the gradient is zero where both are equal."""
    scratch = torch.empty_like(anchor)

    def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        step = now - anchor
        lengths = vectors.sum(torch.mul(step, step, out=scratch)).sqrt()
        each = torch.where(lengths > 0, weights / lengths, 0.0)
        return lengths, step.mul_(vectors.spread(each, step))

    return distance


def quadratic(vectors: Vectors, anchor: Tensor) -> Distance:
    """1/2 delta^T H delta with delta = v - anchor and H = diag(q) - q q^T at q = softmax(anchor).

    That is half the variance of delta under q, and to second order KL(softmax(v) || softmax(anchor)). Its gradient is
    q (delta - mean).
    """
    q = vectors.log_softmax(anchor).exp().to(anchor.dtype)
    scratch = torch.empty_like(anchor)

    def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        step = now - anchor
        mean = vectors.sum(torch.mul(q, step, out=scratch))
        step -= vectors.spread(mean, step)
        pull = q * step
        penalties = 0.5 * vectors.sum(step.mul_(pull))
        if now.dtype == torch.float32 and bool((mean * mean > _SHARED * penalties).any()):
            penalties, pull = quadratic(vectors, anchor.double())(now.double(), weights)
            return penalties, pull.to(now.dtype)
        return penalties, pull.mul_(vectors.spread(weights, pull))

    return distance


def differentiated(formula: Formula) -> Compare:
    """Return a distance that is given by its formula alone; vectors of one length are handed over together."""

    def compare(vectors: Vectors, anchor: Tensor) -> Distance:
        stacks = vectors.stacks()
        anchors = [stack(anchor.double()) for _, stack in stacks]

        def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                exact = now.double().requires_grad_()
                parts = [formula(stack(exact), a) for (_, stack), a in zip(stacks, anchors, strict=True)]
                penalties = torch.zeros_like(weights).index_add(
                    0, torch.cat([which for which, _ in stacks]), torch.cat(parts)
                )
            (gradient,) = torch.autograd.grad(penalties, exact, weights)
            return penalties.detach(), gradient.to(now.dtype)

        return distance

    return compare
