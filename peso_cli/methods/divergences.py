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
    d, product, series = (torch.empty_like(anchor) for _ in range(3))

    def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        torch.sub(now, anchor, out=d)
        low, high = torch.aminmax(d)
        terms = _terms(max(-float(low), float(high)))
        if now.dtype == torch.float64 or terms is None:
            return _exact_kl(vectors, now, anchor, weights)
        torch.mul(q, d, out=product)
        _beyond_linear(d, terms, out=series).mul_(d)  # (exp(d) - 1) / d - 1
        grown = torch.addcmul(product, product, series)  # q (exp(d) - 1)
        s = vectors.sum(grown)
        g = vectors.sum(torch.addcmul(series.mul_(product), grown, d, value=-1, out=series)).neg_()
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
    d, change, log_growth = _moved(vectors, now, anchor, q)
    mean = vectors.sum(change * d)
    gradient = change.add_(q).mul_(d.sub_(vectors.spread(mean, d))).mul_(vectors.spread(weights, d))
    return mean - log_growth, gradient.to(now.dtype)


def smoothed_softmax_kl(smoothing: float) -> Compare:
    """Return the same with `smoothing` added to every probability of both, before they are normalised again.

    With q = softmax(anchor), p = softmax(v) and r = (p - q) / (q + smoothing), it is the sum over n entries of
    (q + smoothing) ((1 + r) log(1 + r) - r) / (1 + n smoothing).
    """

    def compare(vectors: Vectors, anchor: Tensor) -> Distance:
        total = 1 + smoothing * vectors.lengths
        q = vectors.log_softmax(anchor).exp_()

        def distance(now: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
            scratch, p, _ = _moved(vectors, now, anchor, q)
            ratio = p / torch.add(q, smoothing, out=scratch)
            p.add_(q)
            logarithm = ratio.log1p()
            penalties = vectors.sum(torch.addcmul(logarithm, ratio, logarithm).sub_(ratio).mul_(scratch)) / total
            logarithm -= vectors.spread(vectors.sum(torch.mul(p, logarithm, out=scratch)), p)
            return penalties, p.mul_(logarithm).mul_(vectors.spread(weights / total, p)).to(now.dtype)

        return distance

    return compare


def _moved(vectors: Vectors, now: Tensor, anchor: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a step does to the softmax, in float64 and without subtracting nearly equal sums.

    Args:
        vectors: the layout of `now` and `anchor`.
        q: softmax(anchor).

    Returns:
        The step d less its mean under q, softmax(now) - q, and each vector's log sum q exp(d).
    """
    d = now.to(q.dtype, copy=True).sub_(anchor)
    d.sub_(vectors.spread(vectors.sum(q * d), d))
    if float(d.amax()) > _FAR:
        log_p = vectors.log_softmax(anchor).add_(d)
        log_growth = vectors.log_sum_exp(log_p)
        return d, log_p.sub_(vectors.spread(log_growth, d)).exp_().sub_(q), log_growth
    grown = torch.expm1(d).mul_(q)
    s = vectors.sum(grown)
    return d, grown.addcmul_(q, vectors.spread(s, d), value=-1).mul_(vectors.spread(1 / (1 + s), d)), s.log1p()
