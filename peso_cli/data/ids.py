"""Ids as numbers: the dictionary of all users, or of all items, that is held while a dataset is built."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Ids:
    """A dictionary that grows as texts are met."""

    def __init__(self) -> None:
        self._names = pl.Categories.random()
        # The library drops a dictionary that no column refers to.
        self._kind = pl.Categorical(self._names)
        self._keeper = pl.Series([], dtype=self._kind)

    def codes(self, column: str) -> pl.Expr:
        """Return UInt32 numbers for a column of texts, in the order in which they are met; null where there is none."""
        return pl.when(pl.col(column) != "").then(pl.col(column)).cast(self._kind).to_physical().alias(column)

    def in_order(self) -> tuple[pl.Series, NDArray[np.uint32]]:
        """Return the texts in ascending order, and (texts,) the place there of each number."""
        texts = self._names.to_series().rename("")
        order = texts.arg_sort().to_numpy()
        places = np.empty(len(order), dtype=np.uint32)
        places[order] = np.arange(len(order), dtype=np.uint32)
        return texts.gather(pl.Series(order)), places
