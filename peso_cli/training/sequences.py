"""Sequences: which examples are trained together, because a history serves several targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Block
from peso_cli.data.examples import Examples

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequence s reads `events[start[s]:last[s]]` and answers the targets `events[first[s]:last[s] + 1]`.

    Target t is answered from `events[start[s]:t]`, as its own example would be.

    Attributes:
        block: the block that holds the events.
        start, first, last: (n,) positions in `block.events`; `first < last` where a history is shared.
        weight: factor on the loss of all their targets.
    """

    block: Block
    start: Index
    first: Index
    last: Index
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.last)

    @property
    def items(self) -> Index:
        """(n,) number of items that each sequence reads."""
        return self.last - self.start

    @property
    def targets(self) -> Index:
        """(n,) number of targets that each sequence answers."""
        return self.last - self.first + 1


def one_by_one(examples: Examples) -> Sequences:
    """Return one sequence per example."""
    return Sequences(examples.block, examples.start, examples.target, examples.target)


def shared(examples: Examples) -> Sequences:
    """Return one sequence for all examples of a user whose histories begin at the same event.

    Histories that have slid past the window begin elsewhere and stay sequences of their own.
    """
    if not len(examples):
        return one_by_one(examples)
    same = (examples.start[1:] == examples.start[:-1]) & (examples.target[1:] == examples.target[:-1] + 1)
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    last = np.concatenate([first[1:], [len(examples)]]) - 1
    return Sequences(examples.block, examples.start[first], examples.target[first], examples.target[last])
