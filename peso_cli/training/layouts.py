"""Layouts: how sequences become the token rows of one batch, and where in them answers are predicted.

`Packed` is the shared-prefix layout: all sequences of a batch in one row without padding, the template's head once for
all of them, a history once for all the targets that it serves. `Padded` is the reference: a row for each example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from peso_cli.backbones.prompts import Prompt
from peso_cli.training.sequences import Index, Sequences
from peso_cli.training.trees import Grove, Tree, tree_of

Members = Sequence[tuple[Sequences, int]]
Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Batch:
    """Token rows and where in them an answer's token is predicted.

    Attributes:
        tokens: (rows, length) token ids; what is padded is padded on the right.
        at: (labels,) flat positions `row * length + position` whose hidden state predicts a label.
        labels: (labels,) the token ids to predict: each target's codes, then the end token.
        positions: (rows, length) position ids, or None for those of plain rows.
        grove: who attends to whom in a packed row, or None for plain causal rows.
        weights: (labels,) factor on each label's loss, or None where all are 1.
    """

    tokens: Index
    at: Index
    labels: Index
    positions: Index | None = None
    grove: Grove | None = None
    weights: Weights | None = None

    @property
    def mass(self) -> float:
        """The sum of all labels' weights, by which a mean over them divides."""
        return float(len(self.labels) if self.weights is None else self.weights.sum(dtype=np.float64))


class Layout(Protocol):
    """What a packer needs of a layout."""

    @property
    def prompt(self) -> Prompt:
        """The rendered prompt."""

    def lengths(self, sequences: Sequences) -> Index:
        """Return (n,) how many tokens each sequence adds to a batch."""

    def size(self, lengths: Index) -> int:
        """Return how many tokens, padding included, a batch of sequences of these lengths holds."""

    def batch(self, members: Members) -> Batch:
        """Lay sequences, given as (sequences, row), out."""


@dataclass(frozen=True, eq=False)
class Padded:
    """A padded row for each sequence of one target: what the shared layout must equal."""

    prompt: Prompt

    def lengths(self, sequences: Sequences) -> Index:
        """Return (n,) the tokens of each row."""
        lengths: Index = sequences.items * self.prompt.items.shape[1] + self.prompt.longest(0)
        return lengths

    def size(self, lengths: Index) -> int:
        """Return the tokens of the rows, each as long as the longest."""
        return int(lengths.max()) * len(lengths)

    def batch(self, members: Members) -> Batch:
        """Lay the examples out, one a row."""
        rows = [self._row(sequences, row) for sequences, row in members]
        length = max(len(tokens) for tokens, _ in rows)
        padded = np.full((len(rows), length), self.prompt.pad, dtype=np.int64)
        for row, (tokens, _) in enumerate(rows):
            padded[row, : len(tokens)] = tokens
        levels = self.prompt.answers.shape[1]
        begins = np.array([row * length + len(tokens) - levels - 1 for row, (tokens, _) in enumerate(rows)])
        at = (begins[:, None] + np.arange(levels + 1)).reshape(-1)
        labels = _labels(self.prompt, np.array([target for _, target in rows]))
        return Batch(padded, at, labels, weights=_weights(self.prompt, members))

    def _row(self, sequences: Sequences, row: int) -> tuple[Index, int]:
        events, target = sequences.block.events, sequences.last[row]
        assert sequences.first[row] == target
        history = self.prompt.tokens(events[sequences.start[row] : target])
        return np.concatenate([history, self.prompt.answers[events[target]]]), int(events[target])


@dataclass(frozen=True, eq=False)
class Packed:
    """All sequences of a batch in one row, as trees behind one head."""

    prompt: Prompt
    _trees: dict[tuple[int, int], Tree] = field(default_factory=dict, repr=False)

    def lengths(self, sequences: Sequences) -> Index:
        """Return (n,) the tokens of each tree."""
        width: int = self.prompt.items.shape[1]
        trunk: Index = sequences.items * width
        if self.prompt.chains:
            return trunk + width
        branch: int = len(self.prompt.tail) + self.prompt.answers.shape[1]
        return trunk + sequences.targets * branch

    def size(self, lengths: Index) -> int:
        """Return the tokens of the trees and of the head that they share."""
        return int(lengths.sum()) + len(self.prompt.head)

    def batch(self, members: Members) -> Batch:
        """Lay the sequences out in one row, equal trees side by side."""
        head, runs = self.prompt.head, []
        rows, places, at, targets = [head], [np.arange(len(head))], [], []
        before, members = len(head), sorted(members, key=_shape)
        for (items, answered), run in groupby(members, key=_shape):
            tree, wanted = self._tree(items, answered), list(run)
            events = np.stack([s.block.events[s.start[row] : s.last[row] + 1] for s, row in wanted])
            rows.append(self._tokens(events, answered).reshape(-1))
            places.append(np.tile(tree.positions, len(wanted)))
            begins = before + len(tree) * np.arange(len(wanted))
            places_in_row = begins[:, None, None] + tree.answer_at
            at.append(np.where(tree.answer_at < 0, len(head) - 1, places_in_row).reshape(-1))
            targets.append(events[:, -answered:].reshape(-1))
            runs.append((tree, len(wanted)))
            before += len(tree) * len(wanted)
        tokens, positions = np.concatenate(rows)[None], np.concatenate(places)[None]
        labels = _labels(self.prompt, np.concatenate(targets))
        weights = _weights(self.prompt, members)
        return Batch(tokens, np.concatenate(at), labels, positions, Grove(tuple(runs)), weights)

    def _tree(self, items: int, targets: int) -> Tree:
        if (items, targets) not in self._trees:
            self._trees[items, targets] = tree_of(self.prompt, items, targets)
        return self._trees[items, targets]

    def _tokens(self, events: NDArray[np.int32], targets: int) -> Index:
        """Return (trees, n) tokens of equal trees from the (trees, items + 1) events that they read and answer."""
        count, prompt = len(events), self.prompt
        if prompt.chains:
            return prompt.items[events].reshape(count, -1)
        trunk = prompt.items[events[:, :-1]].reshape(count, -1)
        answers = prompt.answers[events[:, -targets:]]
        tails = np.broadcast_to(prompt.tail, (count, targets, len(prompt.tail)))
        return np.concatenate([trunk, np.concatenate([tails, answers], axis=2).reshape(count, -1)], axis=1)


def _shape(member: tuple[Sequences, int]) -> tuple[int, int]:
    sequences, row = member
    start, first, last = sequences.start[row], sequences.first[row], sequences.last[row]
    return int(last - start), int(last - first + 1)


def _labels(prompt: Prompt, targets: NDArray[np.integer]) -> Index:
    """Return the codes of each target and the end token behind them, one after the other."""
    ends = np.full((len(targets), 1), prompt.end, dtype=np.int64)
    return np.concatenate([prompt.answers[targets], ends], axis=1).reshape(-1)


def _weights(prompt: Prompt, members: Members) -> Weights | None:
    """Return the weight of each label of the members' targets, member by member, or None where all are 1."""
    weights = np.array([sequences.weight for sequences, _ in members], dtype=np.float32)
    if (weights == 1).all():
        return None
    targets = np.array([sequences.last[row] - sequences.first[row] + 1 for sequences, row in members])
    return np.repeat(weights, targets * (prompt.answers.shape[1] + 1))
