"""Whether a method differs from a baseline: the paired bootstrap over users and seeds, and Holm's correction.

Sources: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapters 13, 14 and 16; A. B. Owen, The
pigeonhole bootstrap, Annals of Applied Statistics 1 (2007); P. J. McCarthy and C. B. Snowden, The bootstrap and finite
population sampling (1985); A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application (1997), section
4.4; S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peso_cli.errors import InputError

Name = TypeVar("Name", bound=Hashable)

_CELLS = 2**18
"""Draws that are held at a time; three arrays of 8 bytes each stay within the cache of a core."""

_ROUNDING = 1e-12
"""How far two resampled means may lie apart and still be equal, as a share of the largest difference."""


@dataclass(frozen=True)
class Comparison:
    """How much a method's figure differs from the baseline's.

    Attributes:
        mean: method minus baseline, averaged over seeds and users, or over stages where there are strata.
        low, high: the ends of the confidence interval of `mean`.
        p_value: two-sided, of the hypothesis that the true mean is 0; never 0 itself.
        users: how many (stage, user) pairs were compared.
        seeds: how many seeds were; with one, the interval tells nothing of how seeds vary.
    """

    mean: float
    low: float
    high: float
    p_value: float
    users: int
    seeds: int


def paired_bootstrap(
    differences: ArrayLike,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 1,
    strata: ArrayLike | None = None,
) -> Comparison:
    """Compare a method with a baseline by resampling users and seeds.

    Every resample draws as many users as there are, with replacement and within their stage, and takes the same users
    in all seeds. From two seeds on it draws seeds with replacement as well (Owen 2007), one fewer than there are: the
    variance of a mean of S draws out of S would be (S - 1) / S of what it estimates, half of it for two seeds, that of
    S - 1 draws isn't off (McCarthy and Snowden 1985). With two or three seeds that differ by much more than users
    explain, a true null is still rejected too often, for their spread is poorly known.
    Someone who is in several stages counts as somebody else in each.

    The interval is the percentile interval (Efron and Tibshirani 1993, chapter 13). BCa (chapter 14) would correct it
    for bias, of which a mean has none, and for skewness, which is of order 1 / sqrt(users) and which a jackknife over
    a handful of seeds can't tell. The p-value is the share of resamples that lie at least as far from the mean as the
    mean from 0, which is the bootstrap of differences shifted to mean 0 (chapter 16), with the observed mean counted
    among them (Davison and Hinkley 1997).

    Args:
        differences: (seeds, users) the method's value minus the baseline's.
        resamples: how many.
        confidence: of the interval, between 0 and 1.
        seed: of the draws.
        strata: (users,) stages; the figure is the mean over stages of each stage's mean. By default all are of one.

    Raises:
        InputError: there is nothing to compare, a value isn't finite, or a setting is out of its range.
    """
    values = np.asarray(differences, dtype=np.float64)
    _check(values, resamples, confidence)
    seeds, users = values.shape
    stages = np.zeros(users) if strata is None else np.asarray(strata)
    parts = [values[:, stages == stage] for stage in np.unique(stages)]
    seed_stream, *streams = np.random.default_rng(seed).spawn(1 + len(parts))
    mean = float(np.mean([part.mean() for part in parts]))
    by_seed = sum(map(_resampled_means, parts, [resamples] * len(parts), streams), np.zeros((resamples, seeds)))
    figures = (by_seed / len(parts) * _seed_weights(resamples, seeds, seed_stream)).sum(axis=1)
    low, high = np.quantile(figures, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Means of few distinct values are often equal, and must be found equal in whichever order they were summed.
    as_far = np.abs(figures - mean) >= abs(mean) - _ROUNDING * np.abs(values).max()
    p_value = (1 + int(as_far.sum())) / (1 + resamples)
    return Comparison(mean, float(low), float(high), p_value, users, seeds)


def corrected(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjust the p-values of a family of tests by Holm's step-down procedure, in their own order.

    Rejecting those that are at most alpha keeps the chance of any false rejection at alpha, however the tests depend
    on each other. The j-th smallest of m is multiplied by m - j + 1 and is at least as large as those before it.

    Raises:
        InputError: a value isn't between 0 and 1.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise InputError(f"p-values must lie between 0 and 1, not {raw[~((raw >= 0) & (raw <= 1))].tolist()}")
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)), 1)
    return adjusted


def corrected_family(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Adjust a family of named tests as `corrected` does."""
    return dict(zip(p_values, corrected(list(p_values.values())).tolist(), strict=True))


def _check(values: NDArray[np.float64], resamples: int, confidence: float) -> None:
    if not values.size:
        raise InputError("there are no users to compare")
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum())} of {values.size} differences are not finite numbers")
    if resamples < 1:
        raise InputError(f"resamples={resamples}: must be at least 1")
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence}: must lie between 0 and 1")


def _resampled_means(values: NDArray[np.float64], resamples: int, stream: np.random.Generator) -> NDArray[np.float64]:
    """Return the (resamples, seeds) means of (seeds, users) values over users drawn with replacement.

    Most users are missed by both methods. Only how often the others are drawn matters: all together a binomial number
    of times, and each of them equally often.
    """
    seeds, users = values.shape
    telling = values[:, (values != 0).any(axis=0)]
    means, count = np.zeros((resamples, seeds)), telling.shape[1]
    shares = np.ascontiguousarray(telling.T) / users
    draws, step = stream.binomial(users, count / users, size=resamples), max(1, _CELLS // max(count, 1))
    for begin in range(0, resamples if count else 0, step):
        chunk = slice(begin, begin + step)
        means[chunk] = _counts(draws[chunk], count, stream) @ shares
    return means


def _seed_weights(resamples: int, seeds: int, stream: np.random.Generator) -> NDArray[np.float64]:
    """Return (resamples, seeds) weights of the seeds, which sum to 1."""
    if seeds == 1:
        return np.ones((resamples, 1))
    return _counts(np.full(resamples, seeds - 1), seeds, stream) / (seeds - 1)


def _counts(draws: NDArray[np.int64], choices: int, stream: np.random.Generator) -> NDArray[np.float64]:
    """Return (rows, choices) how often each of the choices comes up in a row's (rows,) draws with replacement."""
    drawn = stream.integers(choices, size=int(draws.sum()))
    drawn += np.repeat(np.arange(len(draws)), draws) * choices
    counts = np.bincount(drawn, minlength=len(draws) * choices)
    return counts.reshape(len(draws), choices).astype(np.float64)
