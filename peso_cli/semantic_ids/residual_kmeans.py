"""Fitting residual k-means: each level clusters what the levels before left over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from peso_cli.errors import InputError
from peso_cli.semantic_ids.clustering import check_distinct, clustered, means
from peso_cli.semantic_ids.parts import Codes, Floats, Tick
from peso_cli.semantic_ids.residual import chunks, distances, left_over, nearest
from peso_cli.semantic_ids.shares import PRICED, Rows, even_codes, even_prices


@dataclass(frozen=True)
class Plan:
    """What is to be fitted.

    Attributes:
        balanced: for each level, whether its codes get equal shares of the vectors.
        codes: of each level.
        iterations: most rounds of k-means.
        sample: most vectors that a level is fitted on; None for all.
    """

    balanced: Sequence[bool]
    codes: int
    iterations: int
    sample: int | None


def fit_levels(embeddings: Floats, plan: Plan, seed: int, tick: Tick) -> tuple[tuple[Floats, ...], Codes]:
    """Fit the centres of all levels to (n, width) embeddings, which may be a memory map.

    Beside the embeddings it holds their sample and a chunk. One thread adds in one order, so that the bytes depend on
    the seed alone (and on the kind of processor); k-means of this size hardly gains from more.

    Returns:
        For each level (codes, width) centres, and the (n, levels) codes.

    Raises:
        InputError: there are fewer distinct embeddings in the sample than codes.
    """
    if plan.sample is not None and plan.sample < plan.codes:
        raise InputError(f"quantizer.sample={plan.sample} must be at least quantizer.codes={plan.codes}, or null")
    rows = _sampled(len(embeddings), plan.sample, seed)
    left = np.array(embeddings[rows], np.float32)
    check_distinct(left, plan.codes, "quantizer.codes")
    centers: list[Floats] = []
    codes = np.zeros((len(embeddings), len(plan.balanced)), np.int32)
    with threadpool_limits(1):
        for level, balanced in enumerate(plan.balanced):
            tick(level, len(plan.balanced), f"level {level + 1}")
            found = clustered(left, plan.codes, plan.iterations, seed + level)
            residuals = _residuals(embeddings, tuple(centers), codes)
            codes[:, level] = (_even if balanced else _nearest)(residuals, len(codes), left, found)
            centers.append(means(left, codes[rows, level], found) if balanced else found)
            left -= centers[-1][codes[rows, level]]
    tick(len(plan.balanced), len(plan.balanced), "")
    return tuple(centers), codes


def _sampled(count: int, most: int | None, seed: int) -> Rows:
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _residuals(embeddings: Floats, centers: Sequence[Floats], codes: Codes) -> Callable[[Rows], Floats]:
    return lambda rows: left_over(embeddings[rows], centers, codes[rows])


def _nearest(residuals: Callable[[Rows], Floats], count: int, left: Floats, centers: Floats) -> Codes:
    return np.concatenate([nearest(residuals(np.arange(count)[rows]), centers) for rows in chunks(count)])


def _even(residuals: Callable[[Rows], Floats], count: int, left: Floats, centers: Floats) -> Codes:
    some = left[:: -(-len(left) // PRICED)]
    return even_codes(residuals, count, centers, even_prices(distances(some, centers)))
