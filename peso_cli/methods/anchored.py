"""Penalties over LoRA factors that are anchored at those of earlier stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from peso_cli.errors import InputError
from peso_cli.methods.distances import Compare, Distance
from peso_cli.methods.matrices import MatrixDistance
from peso_cli.methods.parts import Factors, Penalty, RegularizerStart, Step
from peso_cli.methods.settings import AnchoredSettings, Group, scheduled
from peso_cli.methods.vectors import Vectors, vectors_of


def anchored(
    settings: AnchoredSettings, start: RegularizerStart, group: Group | Literal["rank"], compare: Compare
) -> Penalty | None:
    """Return the penalty of vectors against their anchors, or None where it can't act (strength 0).

    Args:
        settings: what all such penalties share.
        start: what the stage begins from.
        group: what one vector is.
        compare: makes what measures the vectors against their anchors; `distances.differentiated` makes one of a
            formula over stacks of vectors.

    Raises:
        InputError: there are no factors, or an earlier stage left none that fit.
    """
    anchors = _anchors(settings, start)
    if not settings.strength:
        return None
    members = _members(start.factors)
    dtype = torch.promote_types(members[0].dtype, torch.float32)
    vectors = vectors_of(start.factors, group)
    weights = _weight(settings, start, anchors) * _entries(settings, vectors.lengths)
    distances = [compare(vectors, vectors.read(_members(anchor), dtype)) for anchor in anchors]
    now = vectors.block(dtype)
    places = vectors.factors(now)

    def penalty(step: Step) -> Tensor:
        with torch.no_grad():
            torch._foreach_copy_(places, members)
        value, gradient = _sum(distances, now, weights * scheduled(settings.schedule, step.progress))
        apply: Any = _Measured.apply
        scalar: Tensor = apply(value, gradient.to(members[0].dtype), vectors, *members)
        return scalar

    return Penalty(penalty)


def _sum(distances: Sequence[Distance], now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    penalties, gradient = distances[0](now, weights)
    for distance in distances[1:]:
        more, its_gradient = distance(now, weights)
        penalties, gradient = penalties + more, gradient + its_gradient
    return weights @ penalties, gradient


def measured(before: Factors, after: Factors, group: Group | Literal["rank"], compare: Compare) -> Tensor:
    """Return the (vectors,) penalties of factors against earlier ones of the same shapes, at strength 1, in float64."""
    vectors = vectors_of(after, group)
    anchor, now = (vectors.read(_members(factors), torch.float64) for factors in (before, after))
    return compare(vectors, anchor)(now, torch.ones_like(vectors.lengths))[0]


class _Measured(torch.autograd.Function):
    """A value whose gradient has been found along with it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: Tensor, vectors: Vectors, *members: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.vectors = vectors
        return value.clone()

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        scaled = gradient if weight == 1 else gradient * weight
        return None, None, None, *ctx.vectors.factors(scaled)


def anchored_matrices(
    settings: AnchoredSettings, start: RegularizerStart, distances: Sequence[MatrixDistance | None]
) -> Penalty | None:
    """Return the penalty of factors, as matrices, against their anchors, or None where it can't act (strength 0).

    Factors of one shape are stacked, so that a step costs a few operations and not a few per module.

    Args:
        settings: what all such penalties share.
        start: what the stage begins from.
        distances: how stacks of A and how stacks of B are measured; None: they aren't.

    Raises:
        InputError: there are no factors, or an earlier stage left none that fit.
    """
    anchors = _anchors(settings, start)
    if not settings.strength:
        return None
    weight = _weight(settings, start, anchors)
    stacks = [
        partial(_stacked, members, before, distance, float(_entries(settings, torch.tensor(members[0].numel()))))
        for side, distance in enumerate(distances)
        if distance is not None
        for members, before in _by_shape(start.factors, anchors, side)
    ]

    def penalty(step: Step) -> Tensor:
        parts = torch.stack([stack() for stack in stacks])
        return weight * scheduled(settings.schedule, step.progress) * parts.sum()

    return Penalty(penalty)


def _stacked(members: list[Tensor], before: Tensor, distance: MatrixDistance, entries: float) -> Tensor:
    return entries * distance(torch.stack(members).double(), before).sum()


def _by_shape(factors: Factors, anchors: Sequence[Factors], side: int) -> list[tuple[list[Tensor], Tensor]]:
    """For each shape return all A (side 0) or B (side 1) and their (anchors, n, rows, columns) anchors."""
    shapes: dict[torch.Size, list[str]] = {}
    for module, pair in factors.items():
        shapes.setdefault(pair[side].shape, []).append(module)
    found = []
    for modules in shapes.values():
        members = [factors[module][side] for module in modules]
        before = [torch.stack([anchor[module][side].detach().double() for module in modules]) for anchor in anchors]
        found.append((members, torch.stack(before).to(members[0].device)))
    return found


def _anchors(settings: AnchoredSettings, start: RegularizerStart) -> Sequence[Factors]:
    """Return the factors that the present ones are held to; those of earlier stages lie where they were read.

    Raises:
        InputError: there are no factors, or an earlier stage left none that fit.
    """
    if not start.factors:
        raise InputError("the adapter trains no LoRA factors that the regularizer could hold; add regularizer=none")
    past = start.past if settings.anchors == "all" else start.past[-1:]
    for number, earlier in enumerate(past, len(start.past) - len(past) + 1):
        for module, pair in start.factors.items():
            if [f.shape for f in earlier.get(module, ())] != [f.shape for f in pair]:
                raise InputError(
                    f"the adapter that earlier stage {number} left has no factors of this shape for {module}; "
                    "train it anew with this backbone.lora"
                )
    return past or (start.factors,)


def _members(factors: Factors) -> list[Tensor]:
    return [factor for pair in factors.values() for factor in pair]


def _weight(settings: AnchoredSettings, start: RegularizerStart, anchors: Sequence[Factors]) -> float:
    return settings.strength / len(anchors) / (len(start.factors) if settings.reduction == "mean" else 1)


def _entries(settings: AnchoredSettings, lengths: Tensor) -> Tensor:
    """Return what each penalty is multiplied with for its vector's length."""
    return lengths if settings.scale == "per_parameter" else torch.ones_like(lengths)
