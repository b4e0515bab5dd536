"""Units of items that are alike and have one semantic ID: what is to be told apart by the last code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats
from peso_cli.semantic_ids.residual import chunks, left_over
from peso_cli.semantic_ids.sharing import Numbers, numbered

Costs = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Units:
    """Items that are alike and have one semantic ID, as one; in lexicographic order of codes.

    Attributes:
        of: (items,) the unit of each item.
        codes: (units, levels).
        sizes: (units,) how many items each one has.
        left: (units, latent width) what all levels but the last leave over, the mean of a unit's items.
    """

    of: Numbers
    codes: Codes
    sizes: Numbers
    left: Costs

    def errors(self, units: slice | Numbers, centers: Floats) -> Costs:
        """Return (chosen units, codes) the squared errors of a unit's items, summed, if their last code were that one.

        What the items of one unit differ by among themselves is left out; it is the same for every code.
        """
        left, exact = self.left[units], centers.astype(np.float64)
        squares = np.square(left).sum(axis=1)[:, None] - 2 * left @ exact.T + np.square(exact).sum(axis=1)
        found: Costs = np.maximum(squares, 0.0) * self.sizes[units, None]
        return found

    def by_prefix(self, taken: Codes) -> Iterator[tuple[slice, Codes]]:
        """Yield the units of each prefix (all codes but the last), with the last codes that are taken behind it."""
        number = numbered(np.concatenate([self.codes, taken])[:, :-1])
        own, others = number[: len(self.codes)], number[len(self.codes) :]
        order = np.argsort(others, kind="stable")
        others, last = others[order], taken[order, -1]
        starts = np.flatnonzero(np.diff(own, prepend=-1))
        begins, ends = (np.searchsorted(others, own[starts], side) for side in ("left", "right"))
        stops = np.append(starts, len(own))[1:]
        for start, stop, begin, end in zip(starts, stops, begins, ends, strict=True):
            yield slice(start, stop), last[begin:end]


def units_of(codebooks: Codebooks, embeddings: Floats, rows: Numbers, codes: Codes, kinds: Numbers) -> Units:
    """Return the units of some items.

    Args:
        codebooks: what the codes belong to.
        embeddings: (all items, width); may be a memory map.
        rows: (items,) which of them.
        codes: (items, levels) their codes.
        kinds: (items,) the same number for items that are alike.
    """
    of = numbered(np.concatenate([codes, kinds[:, None]], axis=1))
    first = np.unique(of, return_index=True)[1]
    sizes = np.bincount(of, minlength=len(first))
    sums = np.zeros((len(first), codebooks.centers[-1].shape[1]))
    for part in chunks(len(rows)):
        latents = codebooks.latents(np.asarray(embeddings[rows[part]]))
        np.add.at(sums, of[part], left_over(latents, codebooks.centers[:-1], codes[part]))
    return Units(of, codes[first], sizes, sums / sizes[:, None])
