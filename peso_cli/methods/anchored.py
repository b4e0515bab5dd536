"""Penalties over LoRA factors that are anchored at the state in which a stage begins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peso_cli.errors import InputError
from peso_cli.methods.distances import Compare
from peso_cli.methods.parts import Factors, Penalty, RegularizerStart, Step
from peso_cli.methods.settings import Reduction


def anchored(
    start: RegularizerStart, strength: float, reduction: Reduction, compare_a: Compare, compare_b: Compare
) -> Penalty | None:
    """Return strength x the penalty of all factors against their present values, or None where it can't act.

    Factors of one shape are stacked, so that a step costs a few operations and not a few per module.

    Args:
        start: what the stage begins from; the factors' present values become the anchor.
        strength: the weight of the penalty.
        reduction: `sum` over factors, or that divided by the number of modules (`mean`).
        compare_a, compare_b: how stacks of A and of B factors are measured against their anchors.

    Raises:
        InputError: there are no factors.
    """
    factors = start.factors
    if not factors:
        raise InputError("the adapter trains no LoRA factors that the regularizer could hold; add regularizer=none")
    if not strength:
        return None
    groups = _groups(factors, compare_a, compare_b)
    members = [factor for group in groups for factor in group.members]
    sizes = [len(group.members) * group.members[0].numel() for group in groups]
    distances = [group.compare(group.stack(_flat(group.members)).detach()) for group in groups]
    weight = strength / (len(factors) if reduction == "mean" else 1)

    def penalty(step: Step) -> Tensor:
        flat = torch.split(_flat(members), sizes)
        parts = [group.stack(part) for group, part in zip(groups, flat, strict=True)]
        return weight * torch.stack([d(part).sum() for d, part in zip(distances, parts, strict=True)]).sum()

    return Penalty(penalty)


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
