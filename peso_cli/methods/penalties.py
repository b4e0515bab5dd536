"""The mathematics of the regularizers, over stacks of factors of one shape, in float64.

In bfloat16 and, for small steps, even in float32 these figures are rounding noise: differences of nearly equal sums.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from peso_cli.methods.regularizers import Factors, Penalty, Reduction

Compare = Callable[[Tensor, Tensor], Tensor]
"""(n, rows, columns) current and anchored factors of one shape to (n,) penalties."""


def softmax_kl(now: Tensor, anchor: Tensor, smoothing: float = 0.0) -> Tensor:
    """KL(softmax(now) || softmax(anchor)), each factor flattened to one distribution.

    Args:
        now, anchor: (n, rows, columns).
        smoothing: added to every probability of both before they are normalised again (and the result kept >= 0).

    Returns:
        (n,) divergences in nats.
    """
    log_p, log_q = (x.flatten(1).log_softmax(-1) for x in (now, anchor))
    if smoothing:
        p, q = (x.exp() + smoothing for x in (log_p, log_q))
        p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
        return (p * (p.log() - q.log())).sum(-1).clamp(min=0.0)
    # The gradient through the last factor sums to zero; leaving it out makes it exactly zero at the anchor.
    return (log_p.exp() * (log_p - log_q).detach()).sum(-1)


def squared_distance(now: Tensor, anchor: Tensor) -> Tensor:
    """(n,) squared Frobenius distances."""
    return (now - anchor).flatten(1).square().sum(-1)


def distance(now: Tensor, anchor: Tensor) -> Tensor:
    """(n,) Frobenius distances; the gradient is zero where both are equal."""
    norms: Tensor = torch.linalg.vector_norm((now - anchor).flatten(1), dim=-1)
    return norms


def orthogonality_a(now: Tensor, anchor: Tensor) -> Tensor:
    """(n,) sums of squares of A Aprev^T, for A of shape (rank, in)."""
    return (now @ anchor.mT).flatten(1).square().sum(-1)


def orthogonality_b(now: Tensor, anchor: Tensor) -> Tensor:
    """(n,) sums of squares of B^T Bprev, for B of shape (out, rank)."""
    return (now.mT @ anchor).flatten(1).square().sum(-1)


def anchored(
    factors: Factors, strength: float, reduction: Reduction, compare_a: Compare, compare_b: Compare
) -> Penalty | None:
    """Return strength x the penalty of all factors against their present values, or None where it can't act.

    Factors of one shape are stacked, so that a step costs a few operations and not a few per module.

    Args:
        factors: the live parameters; their present values become the anchor.
        strength: the weight of the penalty.
        reduction: `sum` over factors, or that divided by the number of modules (`mean`).
        compare_a, compare_b: how stacks of A and of B factors are compared with their anchors.
    """
    if not strength or not factors:
        return None
    stacks = [
        (members, _stack(members).detach(), compare)
        for side, compare in enumerate((compare_a, compare_b))
        for members in _by_shape([pair[side] for pair in factors.values()])
    ]
    weight = strength / (len(factors) if reduction == "mean" else 1)

    def penalty() -> Tensor:
        return weight * torch.stack([compare(_stack(now), anchor).sum() for now, anchor, compare in stacks]).sum()

    return penalty


def _by_shape(factors: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = {}
    for factor in factors:
        groups.setdefault(factor.shape, []).append(factor)
    return list(groups.values())


def _stack(members: list[Tensor]) -> Tensor:
    return torch.stack([m.double() for m in members])
