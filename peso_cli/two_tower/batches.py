"""Batches of two-tower models: pairs with negatives, sequences, and the users whom validation asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from peso_cli.backbones.head import cross_entropy_over_rows
from peso_cli.training.sequences import Index, Sequences
from peso_cli.two_tower import losses
from peso_cli.two_tower.models import FactorModel, SequenceModel
from peso_cli.two_tower.parts import Interactions
from peso_cli.two_tower.roster import Roster
from peso_cli.two_tower.scores import Queries, Seen, padded, scores_of

Weights = NDArray[np.float32]

_ROUNDS = 20
"""Most times that items are drawn anew for those which a user turned out to have had."""


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Interactions, each with an item that its user hasn't had.

    Attributes:
        users, items, negatives: (n,) rows.
        weights: (n,) factors on their loss.
        l2: factor on half the squares of the vectors.
    """

    users: Index
    items: Index
    negatives: Index
    weights: Weights
    l2: float

    @property
    def labels(self) -> Index:
        """(n,) what is to be scored highest."""
        return self.items

    @property
    def mass(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum(dtype=np.float64))

    def loss(self, model: nn.Module, temperature: float) -> Tensor:
        """Return the sum of weight x (BPR loss + l2 / 2 x squares of the three vectors before any averaging)."""
        assert isinstance(model, FactorModel)
        towers, device = model.towers(), model.items.device
        users, items, negatives = (torch.from_numpy(r).to(device) for r in (self.users, self.items, self.negatives))
        assert towers.users is not None
        read = (
            F.embedding(users, towers.users),
            F.embedding(items, towers.items),
            F.embedding(negatives, towers.items),
        )
        own = (F.embedding(users, model.users), F.embedding(items, model.items), F.embedding(negatives, model.items))
        each = losses.bpr(*read) + self.l2 / 2 * torch.stack([v.square().sum(dim=1) for v in own]).sum(dim=0)
        return (torch.from_numpy(self.weights).to(device) * each).sum()


@dataclass(frozen=True, eq=False)
class Pairs:
    """The interactions that a stage trains on, cut into batches anew for each epoch.

    Attributes:
        interactions: what is trained on.
        seen: the items that each user is known to have had, which are no negatives.
        batch_size: interactions of a batch.
        l2: see `PairBatch`.
    """

    interactions: Interactions
    seen: Seen
    batch_size: int
    l2: float

    def __str__(self) -> str:
        return f"{len(self.interactions):,} interactions in batches of {self.batch_size:,}"

    def plan(self, seed: Sequence[int] | None) -> list[list[int]]:
        """Return batches as lists of rows; shuffled by `seed`, or in order if it is None."""
        return _cut(len(self.interactions), self.batch_size, seed)

    def batch(self, members: Sequence[int]) -> PairBatch:
        """Return a batch; its negatives come from torch's generator, which each step seeds."""
        found, rows = self.interactions, np.asarray(members)
        users, items = found.users[rows], found.items[rows]
        return PairBatch(users, items, self.seen.negatives(users, _ROUNDS), found.weights[rows], self.l2)


@dataclass(frozen=True, eq=False)
class SequenceBatch:
    """Histories and the targets that are answered on their way.

    Attributes:
        histories: (n, length) rows of items, filled up with -1 on the right.
        at: (targets,) flat positions `row * (length + 1) + items read` whose state answers a target.
        labels: (targets,) rows of items.
        weights: (targets,) factors on their loss.
        candidates: rows of items over which, beside the target, probabilities are taken; None for all.
    """

    histories: Index
    at: Index
    labels: Index
    weights: Weights
    candidates: Index | None

    @property
    def mass(self) -> float:
        """The sum of the weights."""
        return float(self.weights.sum(dtype=np.float64))

    def loss(self, model: nn.Module, temperature: float) -> Tensor:
        """Return the sum of weight x cross-entropy of the targets, scores divided by `temperature`."""
        assert isinstance(model, SequenceModel)
        device = model.items.device
        states = model.states(torch.from_numpy(self.histories).to(device)).flatten(0, 1)
        states = states[torch.from_numpy(self.at).to(device)]
        labels, weights = torch.from_numpy(self.labels).to(device), torch.from_numpy(self.weights).to(device)
        if self.candidates is None:
            return cross_entropy_over_rows(model.items, states, labels, temperature, weights)
        candidates = torch.from_numpy(self.candidates).to(device)
        return weights @ _over_some(states / temperature, model.items, labels, candidates)


def _over_some(states: Tensor, items: Tensor, labels: Tensor, candidates: Tensor) -> Tensor:
    """Return (n,) the cross-entropy of each label among itself and the candidates other than itself."""
    own = (states * F.embedding(labels, items)).sum(dim=1, keepdim=True)
    others = (states @ F.embedding(candidates, items).T).masked_fill(candidates == labels[:, None], -torch.inf)
    return torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]


@dataclass(frozen=True, eq=False)
class Histories:
    """Sequences of one or more blocks, cut into batches anew for each epoch.

    Attributes:
        sources: the sequences, one entry per block.
        roster: the rows of items.
        batch_size: sequences of a batch.
        negatives: how many items are drawn for a step; None for all there are.
    """

    sources: tuple[Sequences, ...]
    roster: Roster
    batch_size: int
    negatives: int | None

    def __str__(self) -> str:
        targets = sum(int(s.targets.sum()) for s in self.sources)
        return f"{targets:,} examples as {len(self._place):,} sequences in batches of {self.batch_size:,}"

    @cached_property
    def _place(self) -> list[tuple[int, int]]:
        return [(source, row) for source, found in enumerate(self.sources) for row in range(len(found))]

    def plan(self, seed: Sequence[int] | None) -> list[list[int]]:
        """Return batches as lists of sequences; shuffled by `seed`, or in order if it is None."""
        return _cut(len(self._place), self.batch_size, seed)

    def batch(self, members: Sequence[int]) -> SequenceBatch:
        """Return a batch; what is drawn comes from torch's generator, which each step seeds."""
        chosen = [(self.sources[source], row) for source, row in (self._place[m] for m in members)]
        read = [self._rows(s, s.start[row], s.last[row]) for s, row in chosen]
        histories = padded(read, max(len(rows) for rows in read))
        width = histories.shape[1] + 1
        answered = [np.arange(s.first[row] - s.start[row], s.last[row] - s.start[row] + 1) for s, row in chosen]
        return SequenceBatch(
            histories,
            np.concatenate([place * width + steps for place, steps in enumerate(answered)]),
            np.concatenate([self._rows(s, s.first[row], s.last[row] + 1) for s, row in chosen]),
            np.repeat(np.array([s.weight for s, _ in chosen], np.float32), [len(steps) for steps in answered]),
            None if self.negatives is None else torch.randint(len(self.roster.items), (self.negatives,)).numpy(),
        )

    def _rows(self, sequences: Sequences, first: int, end: int) -> Index:
        rows: Index = self.roster.row_of[sequences.block.events[first:end]]
        return rows


@dataclass(frozen=True, eq=False)
class Asked:
    """Users with the item that each will have next.

    Attributes:
        queries: who is asked, by what.
        seen: see `scores_of`; None where nothing is left out.
        labels: (n,) rows of the targets.
    """

    queries: Queries
    seen: Seen | None
    labels: Index

    @property
    def mass(self) -> float:
        """The number of users."""
        return float(len(self.labels))

    @torch.no_grad()
    def loss(self, model: nn.Module, temperature: float) -> Tensor:
        """Return the sum over users of 1 - 1 / rank of the target, all items ranked; those left out rank last."""
        found = scores_of(model, model.towers(), self.queries, self.seen)  # type: ignore[arg-type, operator]
        target = found.gather(1, torch.from_numpy(self.labels).to(found.device)[:, None])
        ranks = (found >= target).sum(dim=1)  # equal scores are not to its favour
        return (1 - 1 / ranks).sum()


@dataclass(frozen=True, eq=False)
class Validation:
    """The users whose reciprocal rank chooses the epoch, in blocks.

    Attributes:
        users: all of them.
        block: how many are ranked for at once.
    """

    users: Asked
    block: int

    def plan(self, seed: Sequence[int] | None) -> list[list[int]]:
        """Return blocks of users, in order."""
        return _cut(len(self.users.labels), self.block, seed)

    def batch(self, members: Sequence[int]) -> Asked:
        """Return a block."""
        rows = np.asarray(members)
        return Asked(self.users.queries.take(rows), self.users.seen, self.users.labels[rows])


def _cut(count: int, size: int, seed: Sequence[int] | None) -> list[list[int]]:
    order = np.arange(count) if seed is None else np.random.default_rng(list(seed)).permutation(count)
    return [order[start : start + size].tolist() for start in range(0, count, size)]
