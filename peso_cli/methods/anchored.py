"""Penalties over LoRA factors that are anchored at those of earlier stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from peso_cli.errors import InputError
from peso_cli.methods.distances import Compare, Distance
from peso_cli.methods.gradients import with_gradients
from peso_cli.methods.parts import Factors, Penalty, RegularizerStart, Step
from peso_cli.methods.settings import AnchoredSettings, reduced, scheduled
from peso_cli.methods.vectors import Grouping, members_of, vectors_of


def anchored(settings: AnchoredSettings, start: RegularizerStart, group: Grouping, compare: Compare) -> Penalty | None:
    """Return the penalty of vectors against their anchors, or None where it can't act (strength 0).

    Args:
        settings: what all such penalties share.
        start: what the stage begins from.
        group: what one vector is.
        compare: makes what measures the vectors against their anchors; `distances.differentiated` makes one of a
            formula over stacks of vectors, `matrices.matrixwise` of one over matrices.

    Raises:
        InputError: there are no factors, or an earlier stage left none that fit.
    """
    anchors = _anchors(settings, start)
    if not settings.strength:
        return None
    members = members_of(start.factors, group)
    dtype = torch.promote_types(members[0].dtype, torch.float32)
    vectors = vectors_of(start.factors, group)
    weights = _weight(settings, start, anchors) * _entries(settings, vectors.lengths)
    distances = [compare(vectors, vectors.read(members_of(anchor, group), dtype)) for anchor in anchors]
    now = vectors.block(dtype)
    places = vectors.factors(now)

    def penalty(step: Step) -> Tensor:
        with torch.no_grad():
            torch._foreach_copy_(places, members)
        value, gradient = _sum(distances, now, weights * scheduled(settings.schedule, step.progress))
        # Whoever takes norms and sums of gradients is several times slower on columns that lie apart.
        return with_gradients(value, members, [part.contiguous() for part in vectors.factors(gradient)])

    return Penalty(penalty)


def _sum(distances: Sequence[Distance], now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    penalties, gradient = distances[0](now, weights)
    for distance in distances[1:]:
        more, its_gradient = distance(now, weights)
        penalties, gradient = penalties + more, gradient + its_gradient
    return weights @ penalties, gradient


def measured(before: Factors, after: Factors, group: Grouping, compare: Compare) -> Tensor:
    """Return the (vectors,) penalties of factors against earlier ones of the same shapes, at strength 1, in float64."""
    vectors = vectors_of(after, group)
    anchor, now = (vectors.read(members_of(factors, group), torch.float64) for factors in (before, after))
    return compare(vectors, anchor)(now, torch.ones_like(vectors.lengths))[0]


def _anchors(settings: AnchoredSettings, start: RegularizerStart) -> Sequence[Factors]:
    """Return the factors that the present ones are held to; those of earlier stages lie where they were read.

    Raises:
        InputError: there are no factors, or an earlier stage left none that fit.
    """
    start.require_factors()
    past = list(start.past if settings.anchors == "all" else start.past[-1:])
    for number, earlier in enumerate(past, 1 + len(start.past) - len(past)):
        for module, pair in start.factors.items():
            if [f.shape for f in earlier.get(module, ())] != [f.shape for f in pair]:
                raise InputError(
                    f"the adapter of an earlier stage ({number} of {len(start.past)}) has no factors of this shape for "
                    f"{module}; train all stages with one backbone.lora"
                )
    # A file's order of modules is not the model's.
    return [{module: earlier[module] for module in start.factors} for earlier in past] or [start.factors]


def _weight(settings: AnchoredSettings, start: RegularizerStart, anchors: Sequence[Factors]) -> float:
    return reduced(settings.strength, settings.reduction, len(start.factors)) / len(anchors)


def _entries(settings: AnchoredSettings, lengths: Tensor) -> Tensor:
    """Return what each penalty is multiplied with for its vector's length."""
    return lengths if settings.scale == "per_parameter" else torch.ones_like(lengths)
