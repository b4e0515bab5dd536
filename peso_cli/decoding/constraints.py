"""What a beam may continue with: the children of a trie node, or any code of the level."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.semantic_ids.trie import build_trie


class Children(NamedTuple):
    """The continuations of nodes of shape (...): codes, child nodes and which of them exist, each (..., fanout)."""

    codes: Tensor
    nodes: Tensor
    exists: Tensor


class Constraint(Protocol):
    """Continuations by level; a node is a number, the root is 0, and children ascend with their codes."""

    levels: int

    def children(self, level: int, nodes: Tensor) -> Children:
        """Return what may follow nodes of depth `level`."""

    def sid_rows(self, nodes: Tensor) -> NDArray[np.int64]:
        """Return the row of `catalog.sids` that each final node stands for, -1 where no item carries it."""


class TrieConstraint:
    """Only real items: a final node is a row of `catalog.sids`. Nodes are int32, as in the trie."""

    def __init__(self, catalog: Catalog, device: torch.device) -> None:
        trie = build_trie(catalog.sids)
        self.levels = trie.levels
        self._codes = [torch.from_numpy(c).to(device) for c in trie.codes]
        self._offsets = [torch.from_numpy(o).to(device) for o in trie.offsets]
        fanouts = [trie.fanout(level) for level in range(trie.levels)]
        self._slots = [torch.arange(fanout, dtype=torch.int32, device=device) for fanout in fanouts]

    def children(self, level: int, nodes: Tensor) -> Children:
        """Return each node's children, filled up to the level's largest fanout."""
        offsets, codes = self._offsets[level], self._codes[level]
        child = offsets[nodes][..., None] + self._slots[level]
        exists = child < offsets[nodes + 1][..., None]
        child = child.clamp(max=len(codes) - 1)
        # What a search picks logits by must be int64: widened only here, for the few that are looked at.
        return Children(codes.index_select(0, child.flatten()).view_as(child).long(), child, exists)

    def sid_rows(self, nodes: Tensor) -> NDArray[np.int64]:
        """Return the nodes themselves."""
        return nodes.cpu().numpy().astype(np.int64)


class PositionalConstraint:
    """Any code of the right level (the paper's rule); a node is the mixed-radix number of its codes."""

    def __init__(self, catalog: Catalog, device: torch.device) -> None:
        self.levels = catalog.levels
        self._sizes = catalog.level_sizes
        self._codes = [torch.arange(size, device=device) for size in self._sizes]
        weights = np.cumprod([1, *self._sizes[:0:-1]])[::-1].astype(np.int64)
        self._numbers = catalog.sids.astype(np.int64) @ weights

    def children(self, level: int, nodes: Tensor) -> Children:
        """Return every code of the level for every node."""
        codes = self._codes[level].expand(*nodes.shape, -1)
        return Children(codes, nodes[..., None] * self._sizes[level] + codes, torch.ones_like(codes, dtype=torch.bool))

    def sid_rows(self, nodes: Tensor) -> NDArray[np.int64]:
        """Look final nodes up among the items' semantic IDs."""
        wanted = nodes.cpu().numpy()
        row = np.searchsorted(self._numbers, wanted).clip(max=len(self._numbers) - 1)
        return np.where(self._numbers[row] == wanted, row, -1)
