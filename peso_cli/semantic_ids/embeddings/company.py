"""Which items stand near which in users' sequences, and vectors made of that. All matrices are sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from peso_cli.errors import InputError
from peso_cli.semantic_ids.parts import Floats, Items

if TYPE_CHECKING:
    from peso_cli.semantic_ids.embeddings.cooccurrence import Cooccurrence
    from peso_cli.stages import Display

POWER_ITERATIONS: Final = 7
"""Of the randomised SVD (Halko et al. 2011): PPMI spectra fall slowly."""


def embed_by_company(settings: Cooccurrence, items: Items, display: Display) -> Floats:
    """Return (items, width) vectors, zeros for items that co-occur with none.

    Raises:
        InputError: no more items than `width` co-occur with others.
    """
    histories, count = items.histories(), len(items.ids)
    seen = np.zeros(count, dtype=bool)
    for history in histories:
        seen[history] = True
    ppmi = positive_information(cooccurrences(histories, count, settings.window))
    present = np.flatnonzero(np.diff(ppmi.indptr))
    _report(settings, count, int(seen.sum()), len(present), display)
    if settings.width >= len(present):
        raise InputError(
            f"embedding.width={settings.width}: only {len(present)} items co-occur with others in stage 1; "
            "choose a smaller width, or an embedding of texts"
        )
    vectors = np.zeros((count, settings.width), dtype=np.float32)
    vectors[present] = _factors(ppmi[present][:, present], settings.width, settings.seed)
    return vectors


def cooccurrences(histories: Sequence[NDArray[np.int32]], items: int, window: int) -> Any:
    """Count how often two different items stand at most `window` events apart in a user's history.

    Returns:
        (items, items) symmetric CSR matrix of float64; an item's meetings with itself don't count.
    """
    events = np.concatenate([np.zeros(0, dtype=np.int32), *histories])
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    counts = sparse.csr_matrix((items, items), dtype=np.float64)
    for apart in range(1, min(window, len(events) - 1) + 1):
        left, right = events[:-apart], events[apart:]
        pairs = (users[:-apart] == users[apart:]) & (left != right)
        ones = np.ones(int(pairs.sum()))
        counts = counts + sparse.coo_matrix((ones, (left[pairs], right[pairs])), shape=(items, items)).tocsr()
    return (counts + counts.T).tocsr()


def positive_information(counts: Any) -> Any:
    """Return max(0, log(n_ij n / (n_i n_j))), the positive pointwise mutual information, of symmetric counts as CSR."""
    cells = counts.tocoo()
    sums = np.asarray(counts.sum(axis=1)).ravel()
    information = np.log(cells.data * sums.sum() / (sums[cells.row] * sums[cells.col]))
    ppmi = sparse.coo_matrix((np.maximum(information, 0.0), (cells.row, cells.col)), shape=counts.shape).tocsr()
    ppmi.eliminate_zeros()
    return ppmi


def _factors(matrix: Any, width: int, seed: int) -> Floats:
    """Return (n, width) U sqrt(S) of an (n, n) sparse matrix; the SVD makes each column's largest entry positive."""
    left, strengths, _ = randomized_svd(
        matrix.astype(np.float32), width, n_iter=POWER_ITERATIONS, flip_sign=True, random_state=seed
    )
    return np.asarray(left * np.sqrt(strengths), dtype=np.float32)


def _report(settings: Cooccurrence, items: int, seen: int, present: int, display: Display) -> None:
    zeros = f"{items - seen} of {items} items have no events in stage 1 and {seen - present} no company there"
    display.say(
        f"{settings.name}: {zeros}; these get the zero vector" if present < items else f"{settings.name}: all items"
    )
