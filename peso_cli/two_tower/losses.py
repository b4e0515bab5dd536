"""What two-tower models and their strategies minimise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float64]


def bpr(users: Tensor, liked: Tensor, others: Tensor) -> Tensor:
    """Return (n,) -log sigmoid(u . i - u . j) of (n, width) vectors of users, of an item each had, and of one not."""
    return F.softplus((users * (others - liked)).sum(dim=1))


def info_nce(vectors: Tensor, references: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """Return the mean of weight x -log(exp(cos(z, r) / tau) / sum over r' of exp(cos(z, r') / tau)).

    The weights are not divided by; with none of the vectors it is 0.

    Args:
        vectors: (n, width); each should be near its own reference.
        references: (n, width), which are each other's negatives.
        temperature: tau.
        weights: (n,) factors, by default 1.
    """
    cosines = F.normalize(vectors, dim=1) @ F.normalize(references, dim=1).T
    each = F.cross_entropy(cosines / temperature, torch.arange(len(vectors), device=vectors.device), reduction="none")
    return (each if weights is None else each * weights).sum() / max(1, len(vectors))


def shares(vectors: Tensor, centers: Tensor, temperature: float) -> Tensor:
    """Return (n, clusters) the softmax over clusters of cos(vector, centre) / tau: where a user's taste lies."""
    return torch.softmax(F.normalize(vectors, dim=1) @ F.normalize(centers, dim=1).T / temperature, dim=1)


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Return (n,) the Jensen-Shannon divergence of (n, clusters) distributions in bits, from 0 to 1."""
    middle = (p + q) / 2
    return (_kl(p, middle) + _kl(q, middle)) / 2


def _kl(p: Floats, q: Floats) -> Floats:
    # Where p is 0 the term is 0; where p isn't, the middle isn't either.
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    total: Floats = (p * np.log2(ratio)).sum(axis=1)
    return total


def top_share(weights: Floats, share: float) -> Floats:
    """Return (n,) weights of which only the largest `share` of them stay, rounded up, and the others are 0."""
    kept = int(np.ceil(share * len(weights)))
    held = np.zeros_like(weights)
    largest = np.argsort(-weights, kind="stable")[:kept]
    held[largest] = weights[largest]
    return held
