"""The mathematics of the regularizers, over stacks of factors of one shape, in float64.

In bfloat16 and, for small steps, even in float32 these figures are rounding noise: differences of nearly equal sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from peso_cli.methods.regularizers import Factors, Penalty, Reduction

Distance = Callable[[Tensor], Tensor]
"""(n, rows, columns) current factors to (n,) penalties in float64."""

Compare = Callable[[Tensor], Distance]
"""(n, rows, columns) anchors of one shape to what measures the current factors against them."""


def softmax_kl(anchor: Tensor) -> Distance:
    """KL(softmax(now) || softmax(anchor)) in nats, each factor flattened to one distribution."""
    flat = anchor.double().flatten(1)
    log_q = flat.log_softmax(1)
    # What rounding makes of log sum q; taken off again, it leaves just 0 at the anchor.
    rest = _log_sum(log_q.clone())[0]
    return lambda now: _SoftmaxKL.apply(now.flatten(1), flat, log_q, rest)  # type: ignore[no-untyped-call]


class _SoftmaxKL(torch.autograd.Function):
    """With d = now - anchor, t = q exp(d), Z = sum t and m = sum t d / Z: KL = m - log Z, gradient t / Z (d - m).

    Value and gradient come out of one exponential.
    """

    @staticmethod
    def forward(ctx: Any, now: Tensor, anchor: Tensor, log_q: Tensor, rest: Tensor) -> Tensor:
        d = now - anchor
        t = d + log_q
        log_mass, mass = _log_sum(t)
        mean = torch.linalg.vecdot(t, d) / mass
        value: Tensor = mean - (log_mass - rest)
        ctx.save_for_backward(d.sub_(mean[:, None]).mul_(t), mass)
        return value

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None, None]:
        pull, mass = ctx.saved_tensors
        return pull * (weight / mass)[:, None], None, None, None


def _log_sum(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n,) log sum exp of (n, m) logs and the sums themselves, leaving the terms of the sums in their place."""
    top = logs.amax(1, keepdim=True)
    mass = logs.sub_(top).exp_().sum(1)
    return mass.log() + top[:, 0], mass


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


def anchored(
    factors: Factors, strength: float, reduction: Reduction, compare_a: Compare, compare_b: Compare
) -> Penalty | None:
    """Return strength x the penalty of all factors against their present values, or None where it can't act.

    Factors of one shape are stacked, so that a step costs a few operations and not a few per module.

    Args:
        factors: the live parameters; their present values become the anchor.
        strength: the weight of the penalty.
        reduction: `sum` over factors, or that divided by the number of modules (`mean`).
        compare_a, compare_b: how stacks of A and of B factors are measured against their anchors.
    """
    if not strength or not factors:
        return None
    groups = _groups(factors, compare_a, compare_b)
    members = [factor for group in groups for factor in group.members]
    sizes = [len(group.members) * group.members[0].numel() for group in groups]
    distances = [group.compare(group.stack(_flat(group.members)).detach()) for group in groups]
    weight = strength / (len(factors) if reduction == "mean" else 1)

    def penalty() -> Tensor:
        flat = torch.split(_flat(members), sizes)
        parts = [group.stack(part) for group, part in zip(groups, flat, strict=True)]
        return weight * torch.stack([d(part).sum() for d, part in zip(distances, parts, strict=True)]).sum()

    return penalty


@dataclass(frozen=True, eq=False)
class _Group:
    """Factors that are compared in the same way and have one shape."""

    compare: Compare
    shape: torch.Size
    members: list[Tensor]

    def stack(self, flat: Tensor) -> Tensor:
        """Return the (n, rows, columns) factors that lie one behind the other in a row of numbers."""
        return flat.view(-1, *self.shape)


def _groups(factors: Factors, compare_a: Compare, compare_b: Compare) -> list[_Group]:
    groups: dict[tuple[Compare, torch.Size], _Group] = {}
    for pair in factors.values():
        for factor, compare in zip(pair, (compare_a, compare_b), strict=True):
            groups.setdefault((compare, factor.shape), _Group(compare, factor.shape, [])).members.append(factor)
    return list(groups.values())


def _flat(factors: list[Tensor]) -> Tensor:
    return torch.cat([factor.reshape(-1) for factor in factors])
