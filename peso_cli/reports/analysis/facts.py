"""What the data say of a stage's test users and of the items that they took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from peso_cli.data.blocks import Block, Dataset
from peso_cli.data.examples import Examples, examples
from peso_cli.semantic_ids.catalog import Catalog


@dataclass(frozen=True, eq=False)
class Facts:
    """The test users of a stage, in the order in which they are scored, and the items up to it.

    Attributes:
        catalog: as it is recommended from at the stage.
        users: (n,) ids.
        targets: (n,) catalog indices of what they took.
        activity: (n,) events of each user before the target.
        drift: (n,) see `user_drift`.
        taken: (items,) training targets of stages 1 to this one.
        ages: (n,) stages since the one that has the target's first event.
    """

    catalog: Catalog
    users: NDArray[np.object_]
    targets: NDArray[np.int32]
    activity: NDArray[np.int64]
    drift: NDArray[np.float64]
    taken: NDArray[np.int64]
    ages: NDArray[np.int64]


def facts_of(dataset: Dataset, stage: int) -> Facts:
    """Return the facts of a stage.

    Raises:
        InputError: the data of the stage, or of one before it, are missing or broken.
    """
    block, catalog = dataset.block(stage), dataset.catalog_at(stage)
    test = examples(block, "test", window=1)
    earlier = [dataset.block(s) for s in range(1, stage + 1)]
    return Facts(
        catalog=catalog,
        users=np.array(block.users, dtype=object)[test.user],
        targets=test.target_items,
        activity=test.target - block.starts[test.user],
        drift=user_drift(test, catalog),
        taken=_taken(earlier, len(catalog.items)),
        ages=stage - _first_stages(earlier, len(catalog.items))[test.target_items],
    )


def _taken(blocks: list[Block], items: int) -> NDArray[np.int64]:
    targets = [examples(block, "train", window=1).target_items for block in blocks]
    return np.bincount(np.concatenate(targets), minlength=items)


def _first_stages(blocks: list[Block], items: int) -> NDArray[np.int64]:
    """Return (items,) the first stage that has an event of each item, 0 for none."""
    first = np.zeros(items, dtype=np.int64)
    for block in reversed(blocks):
        first[block.events] = block.stage
    return first


def user_drift(test: Examples, catalog: Catalog) -> NDArray[np.float64]:
    """Return (n,) how far each user's events of the stage lie from those before it.

    The total variation distance of the shares that the first codes of semantic IDs have among the two: 0 where they
    are alike, 1 where no code is in both; not a number for users without earlier events. The target isn't counted.

    Args:
        test: one example a user.
        catalog: the items' codes.
    """
    block = test.block
    owner = np.repeat(np.arange(len(block.users)), np.diff(block.starts))
    place, target = np.arange(len(block.events)), np.full(len(block.users), -1)
    target[test.user] = test.target
    before = place < block.current[owner]
    codes = catalog.codes[block.events, 0]
    shape = len(block.users), int(catalog.codes[:, 0].max()) + 1
    past, now = (_shares(owner[rows], codes[rows], shape) for rows in (before, ~before & (place < target[owner])))
    distance = 1 - past.minimum(now).sum(axis=1)
    found: NDArray[np.float64] = np.where(block.previous_lengths > 0, distance, np.nan)[test.user]
    # Rounding may lead a hair below the bound.
    return np.maximum(found, 0)


def _shares(rows: NDArray[np.int64], columns: NDArray[np.int32], shape: tuple[int, int]) -> Any:
    """Return a matrix of how often pairs occur, its rows summing to 1."""
    counts = csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    totals = np.maximum(counts.sum(axis=1), 1)
    return counts.multiply(1 / totals[:, None]).tocsr()
