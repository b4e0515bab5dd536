"""Dataset statistics: the paper's dataset table, stage by stage and in total."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Block, Dataset
from peso_cli.data.examples import examples


@dataclass(frozen=True)
class StageStatistics:
    """One row of the dataset table. None means unknown: the stage's data, or what it takes to tell, is missing.

    All figures are about the stage's own events, not the earlier ones that a block repeats. The definitions are those
    that reproduce the dataset table of the PESO paper (arXiv 2510.25093).

    Attributes:
        stage: 1-based stage number.
        users: users with events in this stage.
        new_users: those of them without earlier events.
        items: distinct items in this stage.
        new_items: those of them that occur in no earlier stage; unknown if one of the earlier stages is missing.
        interactions: events in this stage.
        mean_length: events per user; None without users.
        sparsity: 1 - interactions / (users * items); None without users or items.
        train: training examples.
        valid: validation examples.
        test: test examples.
        users_without_examples: users with fewer than 3 events in this stage, who yield no example.
    """

    stage: int
    users: int | None = None
    new_users: int | None = None
    items: int | None = None
    new_items: int | None = None
    interactions: int | None = None
    mean_length: float | None = None
    sparsity: float | None = None
    train: int | None = None
    valid: int | None = None
    test: int | None = None
    users_without_examples: int | None = None


@dataclass(frozen=True)
class TotalStatistics:
    """The table's last row: all stages together. None means unknown, because a stage is missing.

    Attributes:
        users: distinct users.
        items: distinct items with an event, out of a catalog that may hold more.
        interactions: events.
    """

    users: int | None = None
    items: int | None = None
    interactions: int | None = None


def stage_statistics(dataset: Dataset) -> list[StageStatistics]:
    """Return one row for each stage, in order; a stage whose data is missing has nothing but its number.

    Raises:
        InputError: a stage's data is there but broken.
    """
    rows = []
    earlier: NDArray[np.bool_] | None = np.zeros(len(dataset.catalog.items), dtype=bool)
    for stage in range(1, dataset.stages + 1):
        if not dataset.has(stage):
            rows.append(StageStatistics(stage))
            earlier = None
            continue
        block = dataset.block(stage)
        present = _present(block, len(dataset.catalog.items))
        rows.append(_row(block, present, earlier))
        earlier = None if earlier is None else earlier | present
    return rows


def total_statistics(dataset: Dataset) -> TotalStatistics:
    """Return users, items and interactions of all stages together, all unknown if a stage is missing.

    Raises:
        InputError: a stage's data is there but broken.
    """
    stages = range(1, dataset.stages + 1)
    if not all(dataset.has(stage) for stage in stages):
        return TotalStatistics()
    blocks = [dataset.block(stage) for stage in stages]
    present = reduce(np.logical_or, (_present(block, len(dataset.catalog.items)) for block in blocks))
    return TotalStatistics(
        users=len(set().union(*(block.users for block in blocks))),
        items=int(present.sum()),
        interactions=sum(len(block.current_events) for block in blocks),
    )


def _present(block: Block, items: int) -> NDArray[np.bool_]:
    """Return (items,) whether each catalog item occurs in the stage."""
    return np.bincount(block.current_events, minlength=items) > 0


def _row(block: Block, present: NDArray[np.bool_], earlier: NDArray[np.bool_] | None) -> StageStatistics:
    users, items, interactions = len(block.users), int(present.sum()), len(block.current_events)
    train, valid, test = (len(examples(block, split, window=1)) for split in ("train", "valid", "test"))
    cells = users * items
    return StageStatistics(
        stage=block.stage,
        users=users,
        new_users=int((block.previous_lengths == 0).sum()),
        items=items,
        new_items=None if earlier is None else int((present & ~earlier).sum()),
        interactions=interactions,
        mean_length=interactions / users if users else None,
        sparsity=1 - interactions / cells if cells else None,
        train=train,
        valid=valid,
        test=test,
        users_without_examples=users - test,
    )
