"""Centres of vectors: k-means whose every code is used."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning

from peso_cli.errors import InputError
from peso_cli.semantic_ids.parts import Codes, Floats
from peso_cli.semantic_ids.residual import chunks, nearest

_START = 10_000
"""Most vectors among which k-means++ looks for its first centres: its time is that of many rounds of k-means."""

_REVIVALS = 10
"""Most rounds of reviving dead codes; more than two are hardly ever needed."""


def clustered(vectors: Floats, codes: int, iterations: int, seed: int) -> Floats:
    """Return (codes, width) centres of (n, width) vectors, n >= codes, by k-means from a k-means++ start.

    Every centre is the nearest one of some vector, as far as there are as many distinct vectors.
    """
    random = np.random.RandomState(seed)
    some = np.sort(random.permutation(len(vectors))[: max(_START, codes)])
    start, _ = kmeans_plusplus(vectors[some], codes, random_state=random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than codes: at the later levels
        found = KMeans(codes, init=start, n_init=1, max_iter=iterations, random_state=random).fit(vectors)
    return revived(vectors, found.cluster_centers_.astype(np.float32))


def revived(vectors: Floats, centers: Floats) -> Floats:
    """Return the centres with those that no vector is nearest to put on the vectors farthest from their centres."""
    for _ in range(_REVIVALS):
        codes = nearest(vectors, centers)
        dead = np.flatnonzero(np.bincount(codes, minlength=len(centers)) == 0)
        if not len(dead):
            break
        centers = _put_far(vectors, centers, codes, dead)
    return centers


def _put_far(vectors: Floats, centers: Floats, codes: Codes, dead: NDArray[np.intp]) -> Floats:
    """Put dead codes' centres on vectors, each on the one that is then farthest from all centres."""
    far = _squared(vectors, centers, codes)
    centers = centers.copy()
    for code in dead:
        if far.max() <= 0:
            break
        centers[code] = vectors[far.argmax()]
        far = np.minimum(far, _squared(vectors, centers, np.full(len(vectors), code, np.int32)))
    return centers


def _squared(vectors: Floats, centers: Floats, codes: Codes) -> Floats:
    """Return the (n,) squared distances of vectors from the centres of their codes."""
    found = np.empty(len(vectors), np.float32)
    for rows in chunks(len(vectors)):
        found[rows] = np.square(vectors[rows] - centers[codes[rows]]).sum(axis=1)
    return found


def means(vectors: Floats, codes: Codes, centers: Floats) -> Floats:
    """Return the mean of each code's vectors; the centre as it was where a code has none."""
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(centers)))
    found = centers.copy()
    for code, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if end > start:
            found[code] = vectors[order[start:end]].mean(axis=0, dtype=np.float64)
    return found


def check_distinct(embeddings: Floats, codes: int, field: str) -> None:
    """Check that there are at least as many distinct embeddings as codes.

    Args:
        embeddings: (n, width) what the codebooks are fitted on.
        codes: of each level.
        field: how a configuration calls the number of codes.

    Raises:
        InputError: there are fewer.
    """
    distinct: set[bytes] = set()
    for embedding in embeddings:
        distinct.add(embedding.tobytes())
        if len(distinct) >= codes:
            return
    raise InputError(
        f"{field}={codes}: the quantizer is fitted on {len(embeddings):,} embeddings, of which only {len(distinct):,} "
        f"are distinct, and needs at least {codes}: choose fewer codes, or give it more items with different texts"
    )
