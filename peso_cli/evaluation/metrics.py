"""Ranking metrics: Recall@K and NDCG@K, of semantic IDs and of items in expectation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peso_cli.semantic_ids.catalog import Catalog

CUTOFFS = (1, 5, 10)
"""The K at which figures are reported, as far as the lists go; the length of the lists is one more."""

Figures = dict[str, NDArray[np.float64]]
"""One (users,) column a figure, keyed `recall@K` and `ndcg@K` for the K in `cutoffs`."""


def cutoffs(top: int) -> tuple[int, ...]:
    """Return the K at which lists of `top` recommendations are looked at."""
    return (*(k for k in CUTOFFS if k < top), top)


def relevance(
    candidates: ArrayLike, scores: ArrayLike, targets: ArrayLike, legal: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """Rank candidates by score, highest first, and tell which of them equal the query's target.

    Equal scores keep the order of arrival, and so do the candidates that are not legal, which fall behind all others.
    A candidate that arrives twice counts twice, as in the evaluation of the PESO release (arXiv 2510.25093).

    Args:
        candidates: (queries, K) sequences, as strings or numbers.
        scores: (queries, K) their scores, in any order.
        targets: (queries,) the right sequence of each query.
        legal: the sequences that name an item; by default all are legal.

    Returns:
        (queries, K) hits in order of rank.
    """
    candidates, keys = np.asarray(candidates), -np.asarray(scores, dtype=np.float64)
    if legal is not None:
        keys = np.where(np.isin(candidates, np.asarray(legal)), keys, np.inf)
    order = np.argsort(keys, axis=1, kind="stable")
    hits: NDArray[np.bool_] = np.take_along_axis(candidates, order, axis=1) == np.asarray(targets)[:, None]
    return hits


def recall_at_k(relevance: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Return (queries,) 1 where the target is among the first k of (queries, K) ranked hits, else 0."""
    return np.asarray(relevance[:, :k].any(axis=1), dtype=np.float64)


def ndcg_at_k(relevance: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Return (queries,) the sum of 1 / log2(rank + 1) over the hits among the first k of (queries, K) ranked hits.

    There is one target a query, so nothing is divided by an ideal; a target listed twice counts twice.
    """
    top = relevance[:, :k]
    gains: NDArray[np.float64] = (top / np.log2(np.arange(top.shape[1]) + 2)).sum(axis=1)
    return gains


def sid_ranks(ranked: NDArray[np.int64], target_sid: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find each user's target among the ranked semantic IDs.

    Args:
        ranked: (users, K) rows of `catalog.sids`, best first and distinct; -1 fills up where fewer were found.
        target_sid: (users,) row of `catalog.sids` that the target item carries, -1 where it isn't there to recommend.

    Returns:
        (users,) 1-based rank, 0 where the target is missed.
    """
    # What fills up a list must not pass for a target that isn't there.
    hits = (ranked == target_sid[:, None]) & (ranked >= 0)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def sid_figures(ranks: NDArray[np.int64], top: int) -> Figures:
    """Return the figures of semantic IDs: a hit is an equal SID, whichever item was meant.

    Args:
        ranks: (users,) 1-based rank of the target's SID, 0 where it is missed.
        top: the length of the lists.
    """
    hits, at = ranks[:, None] == np.arange(top) + 1, cutoffs(top)
    return {f"recall@{k}": recall_at_k(hits, k) for k in at} | {f"ndcg@{k}": ndcg_at_k(hits, k) for k in at}


def item_figures(ranked: NDArray[np.int64], target: NDArray[np.integer[Any]], catalog: Catalog) -> Figures:
    """Return the figures of items, in expectation over the order of the items that share a semantic ID.

    The g items of the target's SID fill g positions, behind the items of all SIDs ranked before; see `placed_figures`.

    Args:
        ranked: (users, K) rows of `catalog.sids`, best first and distinct; -1 for a sequence that no item carries.
        target: (users,) catalog index of the target item.
        catalog: says which items share a SID.
    """
    top = ranked.shape[1]
    target_sid = catalog.sid_of[target]
    group = catalog.sid_sizes[target_sid]
    ranks = sid_ranks(ranked, target_sid)
    # A sequence that no item carries keeps its place in the list.
    places = np.where(ranked >= 0, catalog.sid_sizes[ranked], 1)
    ahead = (places * (np.arange(top) < ranks[:, None] - 1)).sum(axis=1)
    return placed_figures(np.where(ranks > 0, ahead, top), group, top)


def placed_figures(first: NDArray[np.int64], group: NDArray[np.int64], top: int) -> Figures:
    """Return the figures of items that fill runs of positions: of m of g within K, Recall@K is m / g.

    NDCG@K is the sum of the discounts of those m, divided by g.

    Args:
        first: (users,) the 0-based position at which the g items begin; `top` or more where they are missed.
        group: (users,) how many they are.
        top: the length of the lists.
    """
    positions, at = np.arange(top), cutoffs(top)
    filled = (first[:, None] <= positions) & ((first + group)[:, None] > positions)
    recall = {f"recall@{k}": filled[:, :k].sum(axis=1) / group for k in at}
    return recall | {f"ndcg@{k}": ndcg_at_k(filled, k) / group for k in at}


def mean_figures(
    figures: Mapping[str, NDArray[np.float64]], rows: NDArray[np.bool_] | NDArray[np.int64] | None = None
) -> dict[str, float | int | None]:
    """Average figures over all users or over chosen ones.

    Args:
        figures: (users,) columns by name.
        rows: a (users,) mask or the positions of the users to look at; by default all.

    Returns:
        `users`, how many were averaged, then each figure's mean; None where there are no users.
    """
    chosen = {name: column if rows is None else column[rows] for name, column in figures.items()}
    users = len(next(iter(chosen.values())))
    return {"users": users} | {name: float(column.mean()) if users else None for name, column in chosen.items()}
