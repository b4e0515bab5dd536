"""Packing: sequences of one or more blocks become batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from peso_cli.training.layouts import Batch, Layout
from peso_cli.training.sequences import Index, Sequences

Plan = list[list[tuple[int, int]]]
"""Batches as lists of (source, row)."""

_POOL = 32
"""Sequences are sorted by shape within pools of this many batches: alike in a batch, a fresh mixture every epoch."""


@dataclass(frozen=True, eq=False)
class Packer:
    """Turns sequences into batches of at most `batch_tokens` tokens.

    Attributes:
        sources: the sequences, one entry per block.
        layout: how a batch is laid out.
        batch_tokens: most tokens of a batch, padding included; a longer single sequence is a batch of its own.
    """

    sources: tuple[Sequences, ...]
    layout: Layout
    batch_tokens: int

    @cached_property
    def lengths(self) -> Index:
        """(n,) tokens of every sequence, source by source."""
        return np.concatenate([self.layout.lengths(s) for s in self.sources])

    @cached_property
    def _targets(self) -> Index:
        return np.concatenate([s.targets for s in self.sources])

    def plan(self, seed: Sequence[int] | None) -> Plan:
        """Return all batches; shuffled by `seed`, or in order of length if it is None."""
        source = np.repeat(np.arange(len(self.sources)), [len(s) for s in self.sources])
        row = np.concatenate([np.arange(len(s)) for s in self.sources])
        batches = self._batches(seed)
        return [[(int(source[i]), int(row[i])) for i in batch] for batch in batches]

    def _batches(self, seed: Sequence[int] | None) -> list[list[int]]:
        everything = np.arange(len(self.lengths))
        if seed is None:
            return list(self._cut(self._sorted(everything)))
        random = np.random.default_rng(list(seed))
        batches = [batch for pool in self._pools(random.permutation(everything)) for batch in self._cut(pool)]
        return [batches[i] for i in random.permutation(len(batches))]

    def _sorted(self, members: Index) -> Index:
        return members[np.lexsort((self._targets[members], self.lengths[members]))]

    def _pools(self, order: Index) -> Iterator[Index]:
        filled = np.cumsum(self.lengths[order]) // (self.batch_tokens * _POOL)
        for pool in np.split(order, np.flatnonzero(np.diff(filled)) + 1):
            yield self._sorted(pool)

    def _cut(self, pool: Index) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in pool.tolist():
            if batch and self.layout.size(self.lengths[[*batch, i]]) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def batch(self, members: Sequence[tuple[int, int]]) -> Batch:
        """Lay one planned batch out."""
        return self.layout.batch([(self.sources[source], row) for source, row in members])

    @cached_property
    def fill(self) -> float:
        """Share of the tokens that batches may hold which they do hold, padding not counted."""
        batches = self._batches((0,))
        room = sum(max(self.batch_tokens, self.layout.size(self.lengths[batch])) for batch in batches)
        return float(self.lengths.sum()) / room if batches else 1.0
