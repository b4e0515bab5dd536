"""Packing: which sequences a stage's examples become, and how sequences become batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso_cli.backbones.prompts import Prompt
from peso_cli.data.blocks import Block
from peso_cli.data.examples import Examples

Index = NDArray[np.int64]

_POOL = 32
"""Sequences are sorted by length within pools of this many batches: little padding, yet a fresh mixture every epoch."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequence s reads `events[start[s]:last[s]]` and answers the targets `events[first[s]:last[s] + 1]`.

    Attributes:
        block: the block that holds the events.
        start, first, last: (n,) positions in `block.events`; `first < last` only in chained sequences.
    """

    block: Block
    start: Index
    first: Index
    last: Index

    def __len__(self) -> int:
        return len(self.last)

    def lengths(self, prompt: Prompt) -> Index:
        """Return the (n,) number of tokens of each sequence."""
        answer = prompt.answers.shape[1]
        around: int = len(prompt.head) + len(prompt.tail) + answer
        lengths: Index = (self.last - self.start) * prompt.items.shape[1] + around
        return lengths

    @property
    def targets(self) -> Index:
        """(n,) number of targets that each sequence answers."""
        return self.last - self.first + 1


def one_by_one(examples: Examples) -> Sequences:
    """Return the reference layout: one sequence per example."""
    return Sequences(examples.block, examples.start, examples.target, examples.target)


def chained(examples: Examples) -> Sequences:
    """Return one sequence for all examples of a user whose histories begin at the same event.

    Exact for a prompt that chains: a causal model sees at each target just what its own example would show. Histories
    that have slid past the window begin elsewhere and stay sequences of their own.
    """
    if not len(examples):
        return one_by_one(examples)
    same = (examples.start[1:] == examples.start[:-1]) & (examples.target[1:] == examples.target[:-1] + 1)
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    last = np.concatenate([first[1:], [len(examples)]]) - 1
    return Sequences(examples.block, examples.start[first], examples.target[first], examples.target[last])


@dataclass(frozen=True, eq=False)
class Batch:
    """Padded rows and where in them an answer's token is predicted.

    Attributes:
        tokens: (rows, length) right-padded token ids. Attention is causal, so nothing real attends to the padding.
        at: (labels,) flat positions `row * length + position` whose hidden state predicts a label.
        labels: (labels,) the token ids to predict: each target's codes, then the end token.
    """

    tokens: Index
    at: Index
    labels: Index


def make_batch(parts: Sequence[tuple[Sequences, int]], prompt: Prompt) -> Batch:
    """Lay sequences, given as (sequences, row), out as one padded batch."""
    rows = [_lay_out(sequences, row, prompt) for sequences, row in parts]
    length = max(len(tokens) for tokens, _, _ in rows)
    padded = np.full((len(rows), length), prompt.pad, dtype=np.int64)
    for row, (tokens, _, _) in enumerate(rows):
        padded[row, : len(tokens)] = tokens
    at = np.concatenate([row * length + at for row, (_, at, _) in enumerate(rows)])
    return Batch(padded, at, np.concatenate([labels for _, _, labels in rows]))


def _lay_out(sequences: Sequences, row: int, prompt: Prompt) -> tuple[Index, Index, Index]:
    events, start, first, last = sequences.block.events, sequences.start[row], sequences.first[row], sequences.last[row]
    levels, width = prompt.answers.shape[1], prompt.items.shape[1]
    tokens = np.concatenate([prompt.tokens(events[start:last]), prompt.answers[events[last]]])
    count = last - first + 1
    # The answer to target j begins behind j's history (and the tail); each of its tokens is predicted one place before.
    begins = len(prompt.head) + (np.arange(first, last + 1) - start) * width + len(prompt.tail)
    at = (begins[:, None] - 1 + np.arange(levels + 1)).reshape(-1)
    ends = np.full((count, 1), prompt.end, dtype=np.int64)
    labels = np.concatenate([prompt.answers[events[first : last + 1]], ends], axis=1).reshape(-1)
    return tokens, at, labels


@dataclass(frozen=True, eq=False)
class Packer:
    """Turns sequences of one or more blocks into batches of at most `batch_tokens` padded tokens.

    Attributes:
        sources: the sequences, one entry per block.
        prompt: the rendered prompt.
        batch_tokens: most tokens of a batch, padding included; a longer single sequence is a batch of its own.
    """

    sources: tuple[Sequences, ...]
    prompt: Prompt
    batch_tokens: int

    def plan(self, seed: Sequence[int] | None) -> list[list[tuple[int, int]]]:
        """Return batches as lists of (source, row); shuffled by `seed`, or in order of length if it is None."""
        lengths = np.concatenate([s.lengths(self.prompt) for s in self.sources])
        source = np.repeat(np.arange(len(self.sources)), [len(s) for s in self.sources])
        row = np.concatenate([np.arange(len(s)) for s in self.sources])
        random = None if seed is None else np.random.default_rng(list(seed))
        order = np.argsort(lengths, kind="stable") if random is None else random.permutation(len(lengths))
        batches = [b for pool in self._pools(order, lengths) for b in self._cut(pool, lengths)]
        if random is not None:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return [[(int(source[i]), int(row[i])) for i in batch] for batch in batches]

    def _pools(self, order: Index, lengths: Index) -> Iterator[Index]:
        filled = np.cumsum(lengths[order]) // (self.batch_tokens * _POOL)
        for pool in np.split(order, np.flatnonzero(np.diff(filled)) + 1):
            yield pool[np.argsort(lengths[pool], kind="stable")]

    def _cut(self, pool: Index, lengths: Index) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in pool:
            if batch and lengths[i] * (len(batch) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(int(i))
        if batch:
            yield batch

    def batch(self, members: list[tuple[int, int]]) -> Batch:
        """Lay one planned batch out."""
        return make_batch([(self.sources[source], row) for source, row in members], self.prompt)

    def label_count(self, members: list[tuple[int, int]]) -> int:
        """Return the number of label tokens of a planned batch."""
        per_target: int = self.prompt.answers.shape[1] + 1
        return per_target * sum(int(self.sources[source].targets[row]) for source, row in members)

    @property
    def fill(self) -> float:
        """Share of a plan's padded tokens that are real."""
        lengths = [s.lengths(self.prompt) for s in self.sources]
        padded = sum(len(b) * max(int(lengths[s][r]) for s, r in b) for b in self.plan(None))
        return float(sum(int(x.sum()) for x in lengths)) / padded if padded else 1.0
