"""The trie over a catalog's semantic IDs, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Trie:
    """Nodes of one depth are numbered in lexicographic order, so a node's children are a run of the next depth.

    A node of the last depth is a row of the sorted distinct semantic IDs.

    Attributes:
        codes: for each level, (nodes,) the code by which each node of depth level + 1 is reached.
        offsets: for each level, (nodes + 1,) where the children of each node of depth `level` begin.
    """

    codes: tuple[NDArray[np.int64], ...]
    offsets: tuple[NDArray[np.int64], ...]

    @property
    def levels(self) -> int:
        """Number of codes on every path from the root."""
        return len(self.codes)

    def fanout(self, level: int) -> int:
        """Return the most children that any node of depth `level` has."""
        return int(np.diff(self.offsets[level]).max())


def build_trie(sids: NDArray[np.int32]) -> Trie:
    """Build the trie of (n, levels) distinct semantic IDs in lexicographic order."""
    parent = np.zeros(len(sids), dtype=np.int64)
    codes, offsets, nodes = [], [], 1
    for level in range(sids.shape[1]):
        new = np.ones(len(sids), dtype=bool)
        new[1:] = (np.diff(parent) != 0) | (np.diff(sids[:, level]) != 0)
        first = np.flatnonzero(new)
        codes.append(sids[first, level].astype(np.int64))
        offsets.append(np.searchsorted(parent[first], np.arange(nodes + 1)).astype(np.int64))
        parent, nodes = np.cumsum(new) - 1, len(first)
    return Trie(tuple(codes), tuple(offsets))
