"""Small embeddings to quantize, and the common sense of what comes of it."""

from __future__ import annotations

import numpy as np


def clumps(rows=300, width=16, kinds=20, spread=0.3, seed=0):
    """(rows, width) vectors around some kinds, of very different sizes."""
    random = np.random.default_rng(seed)
    kind = (kinds * random.random(rows) ** 3).astype(int)
    vectors = random.standard_normal((kinds, width))[kind] + spread * random.standard_normal((rows, width))
    return vectors.astype(np.float32)


def silent(done, total, note):
    """A tick that nobody sees."""


def as_bytes(tensors, codes):
    """Everything that a fit leaves, to compare."""
    return {name: array.tobytes() for name, array in tensors.items()} | {"codes": codes.tobytes()}


def sharing(codes):
    """The share of the rows that another row equals."""
    _, which, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return (counts[which.ravel()] > 1).mean()
