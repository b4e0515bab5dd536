"""The popularity baseline: what a stage's users took most, the same list for everybody."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Block
from peso_cli.data.examples import examples
from peso_cli.semantic_ids.catalog import Catalog


def popularity_ranking(block: Block, catalog: Catalog, k: int) -> NDArray[np.int64]:
    """Rank semantic IDs by how many of the stage's training targets carry them, the lowest row first among equals.

    Items that share a semantic ID add up. SIDs that nobody took come last.

    Args:
        block: the stage; only its training examples are counted, not those held out for validation and test.
        catalog: its items.
        k: how many to return.

    Returns:
        (k,) rows of `catalog.sids`, most popular first; fewer if the catalog has fewer.
    """
    targets = examples(block, "train", window=1).target_items
    counts = np.bincount(catalog.sid_of[targets], minlength=len(catalog.sids))
    return np.argsort(-counts, kind="stable")[:k]
