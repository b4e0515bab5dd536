"""The local form of penalties: in what metric they hold the factors to their anchors, and how strongly."""

from __future__ import annotations

import torch
from torch import Tensor

from peso_cli.inspection.support import Metric
from peso_cli.methods.parts import Factors, Regularizer
from peso_cli.methods.regularizers.l2 import L2
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.methods.regularizers.quadratic import Quadratic
from peso_cli.methods.regularizers.rank_kl import RankKL
from peso_cli.methods.regularizers.softmax_kl import SoftmaxKL
from peso_cli.methods.settings import AnchoredSettings, reduced
from peso_cli.methods.vectors import Grouping, vectors_of


def local_form(
    regularizer: Regularizer, factors: Factors, earlier: int, at_anchor: bool
) -> tuple[Metric, float | None]:
    """Return M and lambda of a penalty's local form lambda d^T M d / 2, d the displacement of all factors that train.

    M is that of PESO's term, H = diag(q) - q q^T for each vector, q = softmax(anchor), or 1 for `l2`. Where a penalty
    has no such form, lambda is None and M that of PESO's published term, so that the same directions are shown: its
    strength changes over the stage, its anchor isn't where the stage began, or it isn't quadratic. Without a
    regularizer lambda is 0. The smoothing of softmaxes, many times smaller than the probabilities, is left out.

    Args:
        regularizer: the run's.
        factors: A and B by module where the stage began.
        earlier: how many earlier stages left factors.
        at_anchor: whether the stage began at the factors that the penalty holds to.
    """
    if isinstance(regularizer, NoRegularizer):
        return metric_of(factors, "factor"), 0.0
    vector = _vector_of(regularizer)
    held = isinstance(regularizer, AnchoredSettings) and at_anchor and regularizer.schedule == "constant"
    whole = vector == "factor" or all(factor.requires_grad for pair in factors.values() for factor in pair)
    several = isinstance(regularizer, AnchoredSettings) and regularizer.anchors == "all" and earlier > 1
    if vector is None or not isinstance(regularizer, AnchoredSettings) or not held or not whole or several:
        return metric_of(factors, "factor"), None
    by_length, plain = regularizer.scale == "per_parameter", isinstance(regularizer, L2)
    pull = reduced(regularizer.strength, regularizer.reduction, len(factors))
    return metric_of(factors, vector, plain, by_length), 2 * pull if plain else pull


def _vector_of(regularizer: Regularizer) -> Grouping | None:
    match regularizer:
        case SoftmaxKL(group=group) | Quadratic(group=group) | L2(group=group, unsquared=False):
            return group
        case RankKL():
            return "rank"
        case _:
            return None


def metric_of(factors: Factors, vector: Grouping, plain: bool = False, by_length: bool = False) -> Metric:
    """Return M over all numbers of the factors that train.

    A softmax doesn't see one constant added to all numbers of a vector; such shifts are left out of all directions.

    Args:
        factors: where the softmaxes are taken.
        vector: what they are taken of.
        plain: M = 1 instead of diag(q) - q q^T.
        by_length: each vector's part of M times its length.
    """
    members = [factor for pair in factors.values() for factor in pair]
    vectors = vectors_of(factors, vector)

    def of_numbers(block: Tensor) -> Tensor:
        parts = zip(members, vectors.factors(block.contiguous()), strict=True)
        return torch.cat([part.flatten() for factor, part in parts if factor.requires_grad])

    row = vectors.of_row[:, None].expand_as(vectors.filled)
    scale = of_numbers(vectors.lengths[row]).sqrt() if by_length else 1.0
    if plain:
        return Metric((torch.ones_like(of_numbers(row), dtype=torch.float64) * scale).to(members[0].dtype))
    free = of_numbers(vectors.log_softmax(vectors.read(members, torch.float64)).exp()).sqrt()
    owner = torch.unique(of_numbers(row), return_inverse=True)[1]
    return Metric((free * scale).to(members[0].dtype), free.to(members[0].dtype), owner)
