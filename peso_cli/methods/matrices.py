"""How far the directions of factors lie in those of their anchors, over stacks of factors of one shape, in float64."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

MatrixDistance = Callable[[Tensor, Tensor], Tensor]
"""(n, rows, columns) factors and (anchors, n, rows, columns) anchors to (anchors, n) penalties."""


def orthogonality_a(now: Tensor, anchors: Tensor) -> Tensor:
    """Sums of squares of A Aprev^T, for A of shape (rank, in)."""
    return (now @ anchors.mT).flatten(2).square().sum(2)


def orthogonality_b(now: Tensor, anchors: Tensor) -> Tensor:
    """Sums of squares of B^T Bprev, for B of shape (out, rank)."""
    return (now.mT @ anchors).flatten(2).square().sum(2)


def overlap_a(now: Tensor, anchors: Tensor) -> Tensor:
    """Sums of absolute values of Aprev A^T, for A of shape (rank, in)."""
    return (anchors @ now.mT).flatten(2).abs().sum(2)
