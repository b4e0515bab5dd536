"""Examples: which (history, target) pairs a block yields for training, validation, test, and from before its stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Block

Split = Literal["train", "valid", "test", "next"]

MINIMUM_EVENTS = 3
"""A user with fewer events in a stage yields no example for training, validation or test there."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Columns of examples over one block; example i has history `block.events[start[i]:target[i]]`.

    Attributes:
        block: the block that holds the events.
        user: (n,) row of the example's user in the block.
        start: (n,) where in `block.events` the history begins.
        target: (n,) where in `block.events` the target is.
    """

    block: Block
    user: NDArray[np.int64]
    start: NDArray[np.int64]
    target: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def target_items(self) -> NDArray[np.int32]:
        """(n,) catalog index of each target."""
        return self.block.events[self.target]

    @property
    def history_lengths(self) -> NDArray[np.int64]:
        """(n,) number of items in each history."""
        return self.target - self.start

    def history(self, index: int) -> NDArray[np.int32]:
        """Return the catalog indices of one example's history, oldest first."""
        return self.block.events[self.start[index] : self.target[index]]

    def histories(self) -> list[NDArray[np.int32]]:
        """Return the histories of all examples."""
        return [self.history(index) for index in range(len(self))]

    def take(self, rows: NDArray[np.int64]) -> Examples:
        """Return the examples at `rows`."""
        return Examples(self.block, self.user[rows], self.start[rows], self.target[rows])


def examples(block: Block, split: Split, window: int) -> Examples:
    """Return the examples of one split of a block.

    With a user's `full = previous + current`, training targets are `full[i]` for
    `len(previous) <= i < len(full) - 2`, the validation target is `full[-2]`, the test target `full[-1]`. A history
    is the up to `window` items just before its target.

    The split `next` asks what comes next before the stage begins: its target is `full[len(previous)]`, so that its
    history holds nothing but `previous`. However few their events in the stage, all users have one who have events
    both before the stage and in it.
    """
    ends = block.starts[1:]
    owner = np.flatnonzero(block.current_lengths >= MINIMUM_EVENTS)
    match split:
        case "train":
            counts = block.current_lengths[owner] - 2
            owner = np.repeat(owner, counts)
            target = block.current[owner] + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        case "valid" | "test":
            target = ends[owner] - (2 if split == "valid" else 1)
        case "next":
            owner = np.flatnonzero((block.previous_lengths > 0) & (block.current_lengths > 0))
            target = block.current[owner]
    start = np.maximum(block.starts[owner], target - window)
    return Examples(block, owner, start, target)


def last_known(stage: int, split: Split) -> int:
    """Return the last stage of which a split's histories hold events: that before for `next`, else the stage itself."""
    return stage - 1 if split == "next" else stage
