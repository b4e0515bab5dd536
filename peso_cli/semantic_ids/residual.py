"""Codes by residual quantization: level by level the nearest centre, of what the levels before left over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats

CHUNK = 8192
"""Rows that are worked on at once."""

_DOUBTFUL = 1e-5
"""Distances that differ by less than this share of the squared norms may be swapped by rounding in float32."""

_EXACT_AT_ONCE = 2**22
"""Most numbers held while doubtful rows are decided in float64."""


def encode(codebooks: Codebooks, embeddings: Floats) -> Codes:
    """Encode (n, width) embeddings, which may be a memory map, into (n, levels) codes, a chunk at a time.

    Of centres that are equally near, the one of the lowest code is taken.
    """
    codes = np.empty((len(embeddings), len(codebooks.centers)), np.int32)
    for rows in chunks(len(embeddings)):
        left = np.array(codebooks.latents(np.asarray(embeddings[rows])), np.float32)
        for level, centers in enumerate(codebooks.centers):
            codes[rows, level] = nearest(left, centers)
            left -= centers[codes[rows, level]]
    return codes


def reconstruction_error(codebooks: Codebooks, embeddings: Floats, codes: Codes) -> float:
    """Return how much of the embeddings' spread their codes lose: the relative mean squared error.

    sum_i |x_i - decode(sum over levels of the centre of code c_il)|^2 / sum_i |x_i - mean of x|^2: 0 where nothing is
    lost, 1 where the codes say as much as the mean alone. Where all embeddings are equal, the numerator itself.

    Args:
        codebooks: what the codes belong to.
        embeddings: (n, width), n >= 1; may be a memory map.
        codes: (n, levels).
    """
    mean = np.zeros(embeddings.shape[1])
    for rows in chunks(len(embeddings)):
        mean += np.sum(embeddings[rows], axis=0, dtype=np.float64) / len(embeddings)
    lost = spread = 0.0
    for rows in chunks(len(embeddings)):
        found = np.asarray(embeddings[rows], np.float64)
        lost += float(np.square(found - codebooks.decode(summed(codebooks.centers, codes[rows]))).sum())
        spread += float(np.square(found - mean).sum())
    return lost / spread if spread else lost


def summed(centers: Sequence[Floats], codes: Codes) -> Floats:
    """Return the (n, latent width) sums of the centres that (n, levels) codes name."""
    total = np.zeros((len(codes), centers[0].shape[1]), np.float32)
    for level, level_centers in enumerate(centers):
        total += level_centers[codes[:, level]]
    return total


def left_over(vectors: Floats, centers: Sequence[Floats], codes: Codes) -> Floats:
    """Return what the first levels leave of (n, width) vectors: `centers` of those levels, `codes` of at least them.

    The centres are taken off one after the other, as `encode` does it, so that both see the same numbers.
    """
    left: Floats = np.array(vectors, np.float32)
    for level, level_centers in enumerate(centers):
        left -= level_centers[codes[:, level]]
    return left


def chunks(count: int) -> Iterator[slice]:
    """Yield the slices that cover `count` rows."""
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def distances(vectors: Floats, centers: Floats) -> Floats:
    """Return (n, codes) squared Euclidean distances, less each vector's own squared norm (alike for all codes)."""
    found: Floats = vectors @ (-2 * centers.T)
    found += np.square(centers).sum(axis=1)
    return found


def nearest(vectors: Floats, centers: Floats) -> Codes:
    """Return the (n,) codes of the nearest centres, the lowest one where centres are equally near.

    What rounding in float32 may have decided is decided again in float64, so that the codes depend neither on the
    order in which a product of matrices adds nor on the number of threads.
    """
    codes = np.empty(len(vectors), np.int32)
    for rows in chunks(len(vectors)):
        codes[rows] = _nearest(vectors[rows], centers)
    return codes


def _nearest(vectors: Floats, centers: Floats) -> Codes:
    found = distances(vectors, centers)
    codes: Codes = found.argmin(axis=1).astype(np.int32)
    norms = np.square(vectors).sum(axis=1) + np.square(centers).sum(axis=1).max()
    limit = found[np.arange(len(codes)), codes] + _DOUBTFUL * norms
    doubtful = np.flatnonzero((found <= limit[:, None]).sum(axis=1) > 1)
    step = max(1, _EXACT_AT_ONCE // centers.size)
    for start in range(0, len(doubtful), step):
        rows = doubtful[start : start + step]
        exact = vectors[rows, None].astype(np.float64) - centers
        codes[rows] = np.square(exact).sum(axis=2).argmin(axis=1)
    return codes
