"""Equal shares: every code of a level gets as many vectors as any other, at little cost in distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats
from peso_cli.semantic_ids.residual import CHUNK, distances, left_over

Rows = NDArray[np.intp]

EPSILONS = (1.0, 0.5)
"""Temperatures of the prices, from coarse to fine, as shares of the mean distance beyond the nearest centre.

Finer ones find cheaper equal shares, but more items of one cluster then go to the same code: on 3,459 items of a shop
and 3 x 256 codes, going on to 0.01 lets a fifth more items share a semantic ID and lowers the error by 1%.
"""

_ROUNDS = 8
"""Sinkhorn's rounds at each temperature."""

PRICED = 65_536
"""Most vectors on which prices are found: the plan holds one number for each of them and each code."""

_TINY = 1e-20


def even_prices(found: Floats, epsilons: Sequence[float] = EPSILONS, rounds: int = _ROUNDS) -> Floats:
    """Return (codes,) prices under which the vectors share the codes about equally: argmin of `found - prices`.

    Sinkhorn-Knopp (Cuturi 2013, arXiv 1306.0895) on the plan exp((price_k - d_ik) / epsilon), whose rows sum to 1 and
    whose columns to n / codes. Each temperature starts at the prices of the one before, which are worked into the plan
    anew so that nothing underflows.

    Args:
        found: (n, codes) squared distances, each row up to a constant.
        epsilons: temperatures, descending, as shares of the mean distance beyond the nearest centre.
        rounds: at each temperature.
    """
    beyond = found - found.min(axis=1, keepdims=True)
    scale, share = max(float(beyond.mean()), _TINY), len(found) / found.shape[1]
    prices = np.zeros(found.shape[1], np.float32)
    for epsilon in epsilons:
        plan = plan_of(beyond, prices, epsilon * scale)
        factors = np.ones_like(prices)
        for _ in range(rounds):
            factors = share / np.maximum((1 / (plan @ factors)) @ plan, np.float32(_TINY))
        prices += np.float32(epsilon * scale) * np.log(factors)
        prices -= prices.mean()
    return prices


def plan_of(found: Floats, prices: Floats, temperature: float) -> Floats:
    """Return the (n, codes) plan exp((price_k - d_ik) / temperature), scaled row by row to a maximum of 1."""
    plan: Floats = (prices - found) / np.float32(temperature)
    plan -= plan.max(axis=1, keepdims=True)
    return np.exp(plan, out=plan)


def even_codes(vectors: Callable[[Rows], Floats], count: int, centers: Floats, prices: Floats) -> Codes:
    """Give each of `count` vectors a code, so that the loads of any two codes differ by one at most.

    In rounds: all vectors without a code choose the nearest centre by priced distance among the codes that have room; a
    code that is chosen too often keeps those for which the second choice is worst.

    Args:
        vectors: gives the (m, width) vectors of some rows; it is asked for a chunk at a time.
        count: number of vectors.
        centers: (codes, width).
        prices: (codes,), see `even_prices`.
    """
    codes = np.full(count, -1, np.int32)
    waiting, room = np.arange(count), np.full(len(centers), count)
    choice, margin = _choices(vectors, waiting, centers, prices, room)
    room = _capacities(np.bincount(choice, minlength=len(centers)), count)
    while True:
        kept = _kept(choice, margin, room)
        codes[waiting[kept]] = choice[kept]
        room = room - np.bincount(choice[kept], minlength=len(centers))
        waiting = waiting[~kept]
        if not len(waiting):
            return codes
        choice, margin = _choices(vectors, waiting, centers, prices, room)


def _choices(
    vectors: Callable[[Rows], Floats], rows: Rows, centers: Floats, prices: Floats, room: Rows
) -> tuple[Codes, Floats]:
    """Return for each row the best code with room, and by how much the second best is worse."""
    choice, margin = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    shut = np.where(room > 0, -prices, np.inf).astype(np.float32)
    for start in range(0, len(rows), CHUNK):
        some = slice(start, start + CHUNK)
        priced = distances(vectors(rows[some]), centers) + shut
        at = (np.arange(len(priced)), priced.argmin(axis=1))
        best, priced[at] = priced[at], np.inf
        choice[some], margin[some] = at[1], priced.min(axis=1) - best
    return choice, margin


def _capacities(demand: Rows, count: int) -> Rows:
    """Return (codes,) capacities that sum to `count` and differ by one at most; the most wanted codes get one more."""
    capacities = np.full(len(demand), count // len(demand))
    capacities[np.argsort(-demand, kind="stable")[: count % len(demand)]] += 1
    return capacities


def _kept(choice: Codes, margin: Floats, room: Rows) -> NDArray[np.bool_]:
    """Return which choices stand: as many of each code as it has room for, those of the largest margins."""
    order = np.lexsort((-margin, choice))
    ordered = choice[order]
    place = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    kept = np.empty(len(choice), np.bool_)
    kept[order] = place < room[ordered]
    return kept


def even_last(codebooks: Codebooks, embeddings: Floats, codes: Codes) -> Codes:
    """Return the (n, levels) codes of (n, width) embeddings with those of the last level shared out evenly."""
    *before, last = codebooks.centers

    def vectors(rows: Rows) -> Floats:
        return left_over(codebooks.latents(embeddings[rows]), before, codes[rows])

    step = -(-len(codes) // PRICED)
    some = np.concatenate([vectors(rows) for rows in np.array_split(np.arange(0, len(codes), step), step)])
    prices = even_prices(distances(some, last))
    return np.column_stack([codes[:, :-1], even_codes(vectors, len(codes), last, prices)])
