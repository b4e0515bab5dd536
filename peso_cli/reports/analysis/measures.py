"""Measures beside Recall and NDCG: overlap of hits, calibration, coverage, novelty, exposure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.semantic_ids.catalog import Catalog

HEAD, MIDDLE, TAIL, NEW = range(4)
"""Classes of popularity."""

Vector = NDArray[np.float64]


def popularity_classes(taken: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (items,) the class of each item: three thirds of all events, the most popular items first.

    An item is of the third in which the events of all more popular items end; equally popular items share a class.

    Args:
        taken: (items,) events; items without any are new.
    """
    values, place, counts = np.unique(taken, return_inverse=True, return_counts=True)
    events = values * counts
    above = events.sum() - np.cumsum(events)
    # Whole numbers, lest rounding decide on which side of a bound an item is.
    classes = 3 * above // max(int(events.sum()), 1)
    return np.where(taken > 0, classes[place], NEW)


def overlap(one: Vector, other: Vector) -> dict[str, float]:
    """Return how two methods' hits lie on the same users.

    A hit may be a part of one, where items share a semantic ID; the smaller of two parts is in both. So `first` and
    `both` add up to the first method's recall.

    Args:
        one, other: (n,) hits of each user, 0 to 1.

    Returns:
        Shares of the users: `first` and `second` whom that method alone serves, `both`, `union` whom either serves; and
        `jaccard`, both over union, not a number where nobody is served.
    """
    both, union = float(np.minimum(one, other).mean()), float(np.maximum(one, other).mean())
    return {
        "first": float(one.mean()) - both,
        "second": float(other.mean()) - both,
        "both": both,
        "union": union,
        "jaccard": both / union if union else np.nan,
    }


def equal_widths(confidence: Vector, bins: int) -> NDArray[np.int64]:
    """Return (n,) which of equally wide bins from 0 to 1 each confidence is in."""
    return np.clip((confidence * bins).astype(np.int64), 0, bins - 1)


def equal_counts(confidence: Vector, bins: int) -> NDArray[np.int64]:
    """Return (n,) which of bins that hold equally many each confidence is in; equal ones stand in order of arrival."""
    place = np.empty(len(confidence), dtype=np.int64)
    place[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return place * bins // max(len(confidence), 1)


def calibration_error(confidence: Vector, hits: NDArray[Any], bins: NDArray[np.int64]) -> float:
    """Return the expected calibration error: the mean over users of |mean confidence - share of hits| of their bin.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv 1706.04599.

    Args:
        confidence: (n,) probabilities of a hit.
        hits: (n,) whether it was one.
        bins: (n,) the bin of each.
    """
    gaps = np.bincount(bins, weights=confidence - np.asarray(hits, dtype=np.float64))
    return float(np.abs(gaps).sum() / len(confidence))


def exposure(listed: NDArray[np.int64], catalog: Catalog, shared: bool) -> Vector:
    """Return (visible items,) how often each item was recommended.

    Args:
        listed: (n, K) catalog indices, -1 for none.
        catalog: says which items are visible, and which share a semantic ID.
        shared: whether semantic IDs are recommended, so that the items that carry one share its places equally.
    """
    visible = np.flatnonzero(catalog.sid_of >= 0)
    shown = listed[listed >= 0]
    if not shared:
        return np.bincount(shown, minlength=len(catalog.items))[visible].astype(np.float64)
    sids = catalog.sid_of[shown]
    each = np.bincount(sids[sids >= 0], minlength=len(catalog.sids)) / catalog.sid_sizes
    found: Vector = each[catalog.sid_of[visible]]
    return found


def gini(values: Vector) -> float:
    """Return the Gini coefficient of values of at least 0: 0 where all are equal, near 1 where one has everything.

    Not a number where there is nothing to share.
    """
    ordered, count = np.sort(values), len(values)
    weights = 2 * np.arange(1, count + 1) - count - 1
    total = float(ordered.sum())
    return float((weights * ordered).sum() / (count * total)) if total else np.nan


def novelty(listed: NDArray[np.int64], taken: NDArray[np.int64]) -> float:
    """Return the mean self-information, in bits, of what is recommended: -log2 of its share of the events so far.

    Each item counts one event more than it has, so that none is infinitely new. Vargas and Castells, Rank and Relevance
    in Novelty and Diversity Metrics for Recommender Systems, RecSys 2011.

    Args:
        listed: (n, K) catalog indices, -1 for none.
        taken: (items,) events.
    """
    shares = (taken + 1) / (taken.sum() + len(taken))
    shown = listed[listed >= 0]
    return float(-np.log2(shares[shown]).mean()) if len(shown) else np.nan
