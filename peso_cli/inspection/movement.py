"""How far the LoRA factors of each module moved, and how their spaces turned, without forming any product B A."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from peso_cli.methods.anchored import measured
from peso_cli.methods.divergences import softmax_kl
from peso_cli.methods.parts import Factors, Regularizer, RegularizerStart, Step
from peso_cli.methods.settings import AnchoredSettings

Pair = tuple[Tensor, Tensor]

_DIGITS = 10
"""Decimals of an angle in degrees; what lies behind them is rounding, so that equal spaces have angles of 0."""


def movement(before: Factors, after: Factors, regularizer: Regularizer, past: Sequence[Factors] = ()) -> dict[str, Any]:
    """Return the figures of each module, and those of all together.

    Args:
        before, after: A (rank, in) and B (out, rank) by module; the same modules in both.
        regularizer: the run's; its penalty is left out unless it holds factors to those of earlier stages.
        past: the factors that earlier stages left, oldest first, which it holds them to.

    Returns:
        `modules`, by name: `A` and `B` (norm before, norm of the change, that relative to the norm before, softmax-KL
        at strength 1, principal angles), `BA` (the same norms, without the LoRA's scaling, and the angle between the
        two products taken as vectors) and `penalty`, strength and reduction included, at the end of the stage and
        without its schedule; None too where a penalty takes modules together. `total`: the same norms over all modules,
        and the penalty. What is relative to nothing, or an angle to it, is None or empty.
    """
    exact = [{name: _exact(pair) for name, pair in factors.items()} for factors in (before, after, *past)]
    modules = {name: _module(exact[0][name], exact[1][name]) for name in before}
    if isinstance(regularizer, AnchoredSettings):
        penalties = _penalties(exact[0], exact[1], exact[2:], regularizer)
        total = _penalty(exact[0], exact[1], exact[2:], regularizer)
    else:
        penalties, total = dict.fromkeys(before), None
    for name, figures in modules.items():
        figures["penalty"] = penalties[name]
    return {"modules": modules, "total": {**_total(list(modules.values())), "penalty": total}}


def _module(before: Pair, after: Pair) -> dict[str, Any]:
    (a, b), (new_a, new_b) = before, after
    kl_a, kl_b = measured({"": before}, {"": after}, "factor", softmax_kl).tolist()
    return {
        "rank": len(a),
        "A": {**_change(a, new_a), "softmax_kl": kl_a, "angles": principal_angles(a.mT, new_a.mT)},
        "B": {**_change(b, new_b), "softmax_kl": kl_b, "angles": principal_angles(b, new_b)},
        "BA": _product((a, b), (new_a, new_b)),
    }


def _exact(pair: Pair) -> Pair:
    a, b = (factor.detach().cpu().double() for factor in pair)
    return a, b


def _change(before: Tensor, after: Tensor) -> dict[str, Any]:
    return _norms(float(before.norm()), float((after - before).norm()))


def _norms(before: float, moved: float) -> dict[str, Any]:
    return {"norm_before": before, "moved": moved, "relative": moved / before if before else None}


def _product(before: Pair, after: Pair) -> dict[str, Any]:
    """Return the norms of B A and of its change, and the angle in degrees between the two."""
    (a, b), (new_a, new_b) = before, after
    moved = product_norm(torch.cat([new_a, a]), torch.cat([new_b, -b], dim=1))
    old, new = product_norm(a, b), product_norm(new_a, new_b)
    return {**_norms(old, moved), "angle": _angle(old, new, moved)}


def product_norm(a: Tensor, b: Tensor) -> float:
    """Return the Frobenius norm of B A from the triangular factors of A^T (in, rank) and B (out, rank).

    Orthonormal factors don't change the norm, so that the largest matrix formed is (rank, rank).
    """
    of_a, of_b = (torch.linalg.qr(x, mode="r").R for x in (a.mT, b))
    return float((of_b @ of_a.mT).norm())


def _angle(old: float, new: float, apart: float) -> float | None:
    """Return the angle in degrees between two vectors from their lengths and that of their difference.

    The half-angle form tan^2 = (apart^2 - (new - old)^2) / ((new + old)^2 - apart^2) is exact for small angles too.
    """
    if not old or not new:
        return None
    near = max(0.0, (apart - (new - old)) * (apart + (new - old)))
    far = max(0.0, (new + old - apart) * (new + old + apart))
    return math.degrees(2 * math.atan2(math.sqrt(near), math.sqrt(far)))


def principal_angles(before: Tensor, after: Tensor) -> list[float]:
    """Return the angles in degrees, ascending, between the column spaces of two matrices (Björck and Golub 1973).

    Cosines tell large angles and sines small ones exactly. A matrix of zeros spans nothing: no angles.
    """
    small, large = sorted((_span(before), _span(after)), key=lambda q: q.shape[1])
    if not small.shape[1]:
        return []
    inner = large.mT @ small
    cosines, sines = torch.linalg.svdvals(inner), torch.linalg.svdvals(small - large @ inner).flip(0)
    angles: list[float] = torch.rad2deg(torch.atan2(sines, cosines)).tolist()
    return [round(angle, _DIGITS) for angle in angles]


def _span(matrix: Tensor) -> Tensor:
    """Return an orthonormal basis of the column space, of the matrix's numerical rank."""
    left, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    least = float(sizes[0]) * max(matrix.shape) * torch.finfo(torch.float32).eps  # factors are float32
    spanning: Tensor = left[:, sizes > least]
    return spanning


def _penalties(
    before: Factors, after: Factors, past: Sequence[Factors], regularizer: AnchoredSettings
) -> dict[str, float | None]:
    """Return what each module adds to the penalty; None where its vectors hold factors of several modules."""
    if getattr(regularizer, "group", None) == "layer":
        return dict.fromkeys(before)
    shared = len(before) if regularizer.reduction == "mean" else 1
    alone = replace(regularizer, reduction="sum")
    of_one = {name: [{name: one[name]} for one in (before, after, *past)] for name in before}
    return {name: _penalty(old, new, held, alone) / shared for name, (old, new, *held) in of_one.items()}


@torch.no_grad()
def _penalty(before: Factors, after: Factors, past: Sequence[Factors], regularizer: AnchoredSettings) -> float:
    """Return the penalty of factors that began as `before` and stand at `after`."""
    live = {name: (nn.Parameter(a.clone()), nn.Parameter(b.clone())) for name, (a, b) in before.items()}
    constant: Any = replace(regularizer, schedule="constant")
    penalty = constant.begin(RegularizerStart(nn.Module(), live, past))
    for name, pair in live.items():
        for factor, arrived in zip(pair, after[name], strict=True):
            factor.copy_(arrived)
    return 0.0 if penalty is None else float(penalty.value(Step()))


def _total(modules: list[dict[str, Any]]) -> dict[str, Any]:
    def length(part: str, figure: str) -> float:
        return math.hypot(*(m[part][figure] for m in modules))

    norms = {part: _norms(length(part, "norm_before"), length(part, "moved")) for part in ("A", "B", "BA")}
    for part in ("A", "B"):
        norms[part]["softmax_kl"] = sum(m[part]["softmax_kl"] for m in modules)
    return norms
