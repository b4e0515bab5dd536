"""The ways to fuse two lists of semantic IDs: by ranks, by calibrated probabilities, by exact scores of both models.

Sources: G. V. Cormack, C. L. A. Clarke and S. Buettcher, Reciprocal rank fusion outperforms Condorcet and individual
rank learning methods, SIGIR 2009; J. C. Platt, Probabilistic outputs for support vector machines, 1999 (a logistic
regression on scores; here on a candidate's score and the logarithm of its rank).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.hybrid.settings import Kind

Rows = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidates of n users: what any of two lists holds, the first list's first; axis 0 of the rest is the list.

    Attributes:
        rows: (n, M) distinct rows of `catalog.sids`, -1 for none.
        ranks: (2, n, M) the 1-based rank of each candidate in each list, 0 where it isn't there.
        scores: (2, n, M) its score in each list, minus infinity where it isn't there.
        exact: (2, n, M) the score that each model gives it, listed or not, minus infinity for none; None: not known.
    """

    rows: Rows
    ranks: Rows
    scores: Values
    exact: Values | None = None


@dataclass(frozen=True)
class Calibration:
    """From the score and the rank of a candidate to the probability that it is the target.

    Attributes:
        intercept, of_score, of_log_rank: coefficients of the log-odds.
    """

    intercept: float
    of_score: float
    of_log_rank: float

    def __call__(self, scores: Values, ranks: Rows) -> Values:
        """Return probabilities, 0 where a candidate isn't in the list."""
        listed = ranks > 0
        odds = self.intercept + self.of_log_rank * np.log(np.maximum(ranks, 1))
        odds += self.of_score * np.where(listed, scores, 0.0)
        return np.where(listed, 1 / (1 + np.exp(-np.clip(odds, -500, 500))), 0.0)


@dataclass(frozen=True)
class Fusion:
    """A way to fuse, with all that it needs.

    Attributes:
        kind: which.
        weight: of the first list; the second has 1 - weight.
        constant: of reciprocal ranks.
        calibrations: of both lists, where they are needed.
    """

    kind: Kind
    weight: float
    constant: float
    calibrations: tuple[Calibration, ...] = ()

    def scores(self, pool: Pool) -> Values:
        """Return (n, M) scores of candidates, minus infinity for none."""
        match self.kind:
            case "alone" | "reciprocal_rank":
                parts = np.where(pool.ranks > 0, 1 / (self.constant + pool.ranks), 0.0)
            case "calibrated":
                listed = zip(self.calibrations, pool.scores, pool.ranks, strict=True)
                parts = np.stack([calibration(scores, ranks) for calibration, scores, ranks in listed])
            case "rescored":
                assert pool.exact is not None
                parts = np.stack([standardised(scores, pool.rows >= 0) for scores in pool.exact])
        mixed = self.weight * parts[0] + (1 - self.weight) * parts[1]
        return np.where(pool.rows >= 0, mixed, -np.inf)

    def best(self, pool: Pool, k: int) -> tuple[Rows, Values]:
        """Return (n, k) candidates, best first, and their scores; -1 where none is left.

        Equal ones stand in the pool's order.
        """
        scores = self.scores(pool)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(pool.rows, order, axis=1), np.take_along_axis(scores, order, axis=1)


def pool_of(lists: tuple[Rows, Rows], scores: tuple[Values, Values]) -> Pool:
    """Join two (n, N) lists of rows of `catalog.sids`, best first, -1 for none, with their scores."""
    first, second = lists
    rows = np.concatenate([first, np.where(_ranks(second, first) > 0, -1, second)], axis=1)
    ranks = np.stack([_ranks(rows, listed) for listed in lists])
    found = [np.take_along_axis(s, np.maximum(r - 1, 0), axis=1) for s, r in zip(scores, ranks, strict=True)]
    return Pool(rows, ranks, np.where(ranks > 0, np.stack(found), -np.inf))


def with_exact(pool: Pool, *scores: NDArray[np.floating[Any]]) -> Pool:
    """Return a pool whose candidates have (n, M) exact scores of both models."""
    return replace(pool, exact=np.stack(scores).astype(np.float64))


def _ranks(rows: Rows, listed: Rows) -> Rows:
    """Return the 1-based rank of each of (n, M) rows in (n, N) lists, 0 where it isn't there or none."""
    found = np.zeros(rows.shape, dtype=np.int64)
    # One place of the lists after the other, so that nothing of n x M x N cells is held.
    for place in range(listed.shape[1]):
        found[(rows == listed[:, [place]]) & (rows >= 0)] = place + 1
    return found


def standardised(scores: Values, real: NDArray[np.bool_]) -> Values:
    """Return (n, M) scores less their mean over each user's real candidates, over their standard deviation.

    Minus infinity (an item that the user had, or that a model doesn't know) counts as the lowest finite score.
    """
    known = real & np.isfinite(scores)
    lowest = np.where(known, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    filled = np.where(known | np.isnan(scores), scores, np.where(np.isfinite(lowest), lowest, 0.0))
    count = np.maximum(real.sum(axis=1, keepdims=True), 1)
    centred = np.where(real, filled - (filled * real).sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return centred / np.where(spread == 0, 1.0, spread)


def calibrate(scores: Values, ranks: Rows, hits: NDArray[np.bool_]) -> Calibration:
    """Fit a calibration to (n, M) scores and ranks (0: not listed) of a list, and which candidates are targets."""
    from sklearn.linear_model import LogisticRegression

    listed = ranks > 0
    features = np.stack([scores[listed], np.log(ranks[listed])], axis=1)
    if len(np.unique(hits[listed])) < 2:
        return Calibration(0.0, 0.0, -1.0)  # nothing can be learnt: in order of their ranks
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1.0
    fitted = LogisticRegression(tol=1e-8, max_iter=1000).fit((features - mean) / spread, hits[listed])
    slopes = fitted.coef_[0] / spread
    return Calibration(float(fitted.intercept_[0] - slopes @ mean), float(slopes[0]), float(slopes[1]))
