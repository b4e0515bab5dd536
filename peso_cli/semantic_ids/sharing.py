"""Which items share a semantic ID, and which of those could be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.semantic_ids.parts import Codes, Floats

Numbers = NDArray[np.int64]
Marks = NDArray[np.bool_]


def numbered(columns: NDArray[Any]) -> Numbers:
    """Return (n,) the number of each row of (n, columns) among the distinct rows in lexicographic order, from 0."""
    number = np.zeros(len(columns), np.int64)
    for column in columns.T:
        values, code = np.unique(column, return_inverse=True)
        # Numbers stay below n, so that the product can't overflow, however many columns there are.
        number = np.unique(number * max(len(values), 1) + code, return_inverse=True)[1].astype(np.int64)
    return number


def alike(texts: Sequence[str], embeddings: Floats) -> Numbers:
    """Return (n,) a number for each item, the same for items that can't be told apart: those of equal text.

    Items without a text are alike where their embeddings are equal. Numbers are given in order of first appearance, so
    that items which come later leave them as they are.
    """
    numbers: dict[str | bytes, int] = {}
    keys = (text or embeddings[row].tobytes() for row, text in enumerate(texts))
    return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(texts))


def shares(codes: Codes) -> Marks:
    """Return (n,) which items have the semantic ID of another one."""
    sid = numbered(codes)
    found: Marks = np.bincount(sid)[sid] > 1
    return found


def contested(codes: Codes, kinds: Numbers) -> Marks:
    """Return (n,) which items have the semantic ID of one that isn't alike.

    Args:
        codes: (n, levels).
        kinds: (n,) what `alike` gives.
    """
    sid = numbered(codes)
    first = np.unique(numbered(np.stack([sid, kinds], axis=1)), return_index=True)[1]
    found: Marks = np.bincount(sid[first], minlength=len(sid))[sid] > 1
    return found
