"""The graph of users and items, over which LightGCN averages vectors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import bmat, csr_matrix, diags
from torch import Tensor


def adjacency(interactions: csr_matrix, device: torch.device) -> Tensor:
    """Return D^-1/2 A D^-1/2 of the graph of users and items, as a sparse (users + items, users + items) tensor.

    Args:
        interactions: (users, items) with a 1 for each edge.
        device: where the tensor goes.
    """
    edges = bmat([[None, interactions], [interactions.T, None]], format="csr", dtype=np.float32)
    degrees = np.asarray(edges.sum(axis=1)).reshape(-1)
    scale = diags(np.where(degrees > 0, np.maximum(degrees, 1.0) ** -0.5, 0.0).astype(np.float32))
    found = (scale @ edges @ scale).tocsr()
    rows, columns = (torch.from_numpy(part.astype(np.int64)) for part in (found.indptr, found.indices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "beta state", once in every process
        values = torch.from_numpy(found.data.astype(np.float32))
        return torch.sparse_csr_tensor(rows, columns, values, found.shape).to(device)


def propagated(vectors: Tensor, graph: Tensor, layers: int) -> Tensor:
    """Return the mean of vectors and what `layers` steps over the graph make of them."""
    result: Tensor = _Propagation.apply(vectors, graph, layers)  # type: ignore[no-untyped-call]
    return result


class _Propagation(torch.autograd.Function):
    """A linear map by a symmetric matrix: the gradient goes back the way the vectors came."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, graph: Tensor, layers: int) -> Tensor:
        ctx.graph, ctx.layers = graph, layers
        return _mean_of_layers(vectors, graph, layers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _mean_of_layers(gradient.contiguous(), ctx.graph, ctx.layers), None, None


def _mean_of_layers(vectors: Tensor, graph: Tensor, layers: int) -> Tensor:
    total, current = vectors, vectors
    for _ in range(layers):
        current = graph @ current
        total = total + current
    return total / (layers + 1)
