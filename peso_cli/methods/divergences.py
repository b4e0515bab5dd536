"""KL divergences of softmaxes to those of their anchors, each found along with its gradient (see `distances`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from peso_cli.methods.distances import Compare, Distance
from peso_cli.methods.vectors import Vectors

_SERIES = tuple(1 / math.factorial(n + 2) for n in range(11))
"""Coefficients of (exp(d) - 1 - d) / d^2."""

_NEGLIGIBLE = 2e-7
"""Largest share of a divergence that the first term left out of that series makes up."""

_FAR = 600.0
"""Steps of which exp is still far from what a float64 can hold."""


def softmax_kl(vectors: Vectors, anchor: Tensor) -> Distance:
    """KL(softmax(v) || softmax(anchor)) in nats.

    With q = softmax(anchor), d = v - anchor, S = sum q (exp(d) - 1) and G = sum q ((d - 1) exp(d) + 1), it is
    (G - S^2) / (1 + S) + (S - log(1 + S)), and its gradient p (d - m), where p = q exp(d) / (1 + S) is softmax(v) and
    m = (S + G) / (1 + S). As S is of the order of the mean of d, which counts for nothing, and enters squared, nearly
    equal sums are subtracted only if nearly all of a step is one number for all entries.
    """
    q = vectors.log_softmax(anchor).exp().to(anchor.dtype)
    d, series = torch.empty_like(anchor), torch.empty_like(anchor)

    def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        torch.sub(now, anchor, out=d)
        low, high = torch.aminmax(d)
        terms = _terms(max(-float(low), float(high)))
        if now.dtype == torch.float64 or terms is None:
            return _exact_kl(vectors, now, anchor, weights)
        grown = q * d
        _beyond_linear(d, terms, out=series).mul_(d).mul_(grown)  # q (exp(d) - 1 - d)
        s = vectors.sum(grown.add_(series))  # q (exp(d) - 1)
        g = vectors.sum(series.addcmul_(grown, d, value=-1)).neg_()
        if bool((s * s > 1.6 * g).any()):
            return _exact_kl(vectors, now, anchor, weights)
        value = (g - s * s) / (1 + s) + (s - s.log1p())
        d.sub_(vectors.spread((s + g) / (1 + s), d))
        return value, grown.add_(q).mul_(d).mul_(vectors.spread(weights / (1 + s), d))

    return distance


def _terms(largest: float) -> int | None:
    """Return how many terms of the series steps up to `largest` need for float32; None where there are too few."""
    for n, coefficient in enumerate(_SERIES[2:], 2):
        if 2 * (n + 1) * coefficient * largest**n < _NEGLIGIBLE:
            return n
    return None


def _beyond_linear(d: Tensor, terms: int, out: Tensor) -> Tensor:
    """Return (exp(d) - 1 - d) / d^2."""
    torch.add(d.new_tensor(_SERIES[terms - 2]), d, alpha=_SERIES[terms - 1], out=out)
    for coefficient in reversed(_SERIES[: terms - 2]):
        torch.addcmul(d.new_tensor(coefficient), out, d, out=out)
    return out


def _exact_kl(vectors: Vectors, now: Tensor, anchor: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same in float64, for steps of any size."""
    q = vectors.log_softmax(anchor).exp_()
    d, change = torch.empty_like(q), torch.empty_like(q)
    log_growth = _move(vectors, now, anchor, q, d, change)
    mean = vectors.sum(change * d)
    gradient = change.add_(q).mul_(d.sub_(vectors.spread(mean, d))).mul_(vectors.spread(weights, d))
    return mean - log_growth, gradient.to(now.dtype)


def smoothed_softmax_kl(smoothing: float) -> Compare:
    """Return the same with `smoothing` added to every probability of both, before they are normalised again.

    With q = softmax(anchor), p = softmax(v) and r = (p - q) / (q + smoothing), it is the sum over n entries of
    (q + smoothing) ((1 + r) log(1 + r) - r) / (1 + n smoothing), here in float64 throughout.
    """

    def compare(vectors: Vectors, anchor: Tensor) -> Distance:
        total = 1 + smoothing * vectors.lengths
        q = vectors.log_softmax(anchor).exp_()
        smooth = q + smoothing
        # Kept from step to step: memory newly taken for each costs more than the arithmetic.
        d, p, r, logarithm = (torch.empty_like(q) for _ in range(4))

        def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            _move(vectors, now, anchor, q, d, p)
            torch.log1p(torch.div(p, smooth, out=r), out=logarithm)
            terms = torch.mul(r, logarithm, out=d).sub_(r.sub_(logarithm))
            penalties = vectors.sum(terms.mul_(smooth)) / total
            p.add_(q)
            logarithm.sub_(vectors.spread(vectors.sum(torch.mul(p, logarithm, out=d)), d))
            gradient = torch.mul(p, logarithm, out=d).mul_(vectors.spread(weights / total, d))
            return penalties, gradient.to(now.dtype, copy=True)

        return distance

    return compare


def _move(vectors: Vectors, now: Tensor, anchor: Tensor, q: Tensor, d: Tensor, change: Tensor) -> Tensor:
    """Find what a step does to the softmax, in float64 and without subtracting nearly equal sums.

    Args:
        vectors: the layout of `now` and `anchor`.
        now: the current values; `anchor`: those before.
        q: softmax(anchor).
        d: where the step goes, less its mean under q.
        change: where softmax(now) - q goes.

    Returns:
        (vectors,) log sum q exp(d), the smaller the step.
    """
    d.copy_(now).sub_(anchor)
    d.sub_(vectors.spread(vectors.sum(torch.mul(q, d, out=change)), d))
    if float(d.amax()) > _FAR:
        change.copy_(vectors.log_softmax(anchor)).add_(d)
        log_growth = vectors.log_sum_exp(change)
        change.sub_(vectors.spread(log_growth, d)).exp_().sub_(q)
        return log_growth
    s = vectors.sum(torch.expm1(d, out=change).mul_(q))
    change.addcmul_(q, vectors.spread(s, d), value=-1).mul_(vectors.spread(1 / (1 + s), d))
    return s.log1p()
