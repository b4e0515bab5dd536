"""The trie over a catalog's semantic IDs, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Trie:
    """Nodes of one depth are numbered in lexicographic order, so a node's children are a run of the next depth.

    A node of the last depth is a row of the sorted distinct semantic IDs. Numbers take 4 bytes, which is enough for
    2 billion semantic IDs: a node costs 8 bytes, whatever the codes.

    Attributes:
        codes: for each level, (nodes,) the code by which each node of depth level + 1 is reached.
        offsets: for each level, (nodes + 1,) where the children of each node of depth `level` begin.
    """

    codes: tuple[NDArray[np.int32], ...]
    offsets: tuple[NDArray[np.int32], ...]

    @property
    def levels(self) -> int:
        """Number of codes on every path from the root."""
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        return sum(array.nbytes for array in (*self.codes, *self.offsets))

    def fanout(self, level: int) -> int:
        """Return the most children that any node of depth `level` has."""
        return int(np.diff(self.offsets[level]).max())


def build_trie(sids: NDArray[np.int32]) -> Trie:
    """Build the trie of (n, levels) distinct semantic IDs in lexicographic order, n > 0."""
    codes, offsets = [], []
    begins, above = np.zeros(len(sids), dtype=bool), np.zeros(1, dtype=np.int64)
    begins[0] = True
    for column in sids.T:
        begins[1:] |= column[1:] != column[:-1]
        first = np.flatnonzero(begins)
        codes.append(column[first])
        offsets.append(np.append(np.searchsorted(first, above), len(first)).astype(np.int32))
        above = first
    return Trie(tuple(codes), tuple(offsets))
