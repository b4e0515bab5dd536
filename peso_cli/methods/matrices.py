"""How far the directions of factors lie in those of their anchors, found along with the gradients, in float64.

Such products of nearly orthogonal vectors are what is left of sums that cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from peso_cli.methods.distances import Compare, Distance
from peso_cli.methods.vectors import Vectors

Overlap = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(n, rows, columns) factors and anchors to (n,) penalties and the gradient of each."""


def squares_of_a(now: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares of A Aprev^T, for A of shape (rank, in)."""
    products = now @ anchor.mT
    return products.square().sum((1, 2)), (2 * products) @ anchor


def squares_of_b(now: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of squares of B^T Bprev, for B of shape (out, rank)."""
    products = now.mT @ anchor
    return products.square().sum((1, 2)), anchor @ (2 * products.mT)


def entries_of_a(now: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of absolute values of A Aprev^T, for A of shape (rank, in)."""
    products = now @ anchor.mT
    return products.abs().sum((1, 2)), products.sign() @ anchor


def matrixwise(*overlaps: Overlap) -> Compare:
    """Return a distance that takes each vector as the matrix that it was; those of one shape are handed over together.

    Args:
        overlaps: one for all factors, or one for A and one for B.
    """

    def compare(vectors: Vectors, anchor: Tensor) -> Distance:
        stacks: dict[tuple[Overlap, torch.Size], list[int]] = {}
        for number, (shape, _, _) in enumerate(vectors.places):
            stacks.setdefault((overlaps[number % len(overlaps)], shape), []).append(number)
        members = [(overlap, numbers) for (overlap, _), numbers in stacks.items()]
        order = torch.tensor([number for _, numbers in members for number in numbers], device=anchor.device).argsort()
        before = [_stack(vectors.factors(anchor), numbers) for _, numbers in members]

        def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            factors, gradient = vectors.factors(now), torch.empty_like(now)
            places, penalties = vectors.factors(gradient), []
            for (overlap, numbers), old in zip(members, before, strict=True):
                values, pull = overlap(_stack(factors, numbers), old)
                torch._foreach_copy_([places[number] for number in numbers], list(pull))
                penalties.append(values)
            return torch.cat(penalties)[order], gradient.mul_(vectors.spread(weights, gradient))

        return distance

    return compare


def _stack(factors: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
    return torch.stack([factors[number] for number in numbers]).double()
