"""Scores of all items for users: products of vectors, with what a user already has left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from peso_cli.training.sequences import Index
from peso_cli.two_tower.models import Model
from peso_cli.two_tower.parts import Towers


@dataclass(frozen=True, eq=False)
class Seen:
    """What each user is known to have had.

    Attributes:
        matrix: (users, items) with a 1 for each pair that occurs.
    """

    matrix: csr_matrix

    @cached_property
    def _keys(self) -> Index:
        users, items = self.matrix.nonzero()
        keys: Index = np.sort(users.astype(np.int64) * self.matrix.shape[1] + items)
        return keys

    def cells(self, users: Index) -> tuple[Index, Index]:
        """Return (place in `users`, item) of all pairs of (n,) rows of users, of which -1 has none."""
        known = np.flatnonzero(users >= 0)
        place, items = self.matrix[users[known]].nonzero()
        return known[place], items.astype(np.int64)

    def negatives(self, users: Index, rounds: int) -> Index:
        """Return (n,) an item for each of (n,) users, uniform over those that the user hasn't had.

        They come from torch's generator. Users who have had nearly all may be left with one they had after `rounds`
        of drawing anew.
        """
        count = self.matrix.shape[1]
        drawn: Index = torch.randint(count, (len(users),)).numpy()
        for _ in range(rounds):
            had = np.flatnonzero(self._has(users * count + drawn))
            if not len(had):
                break
            drawn[had] = torch.randint(count, (len(had),)).numpy()
        return drawn

    def _has(self, keys: Index) -> NDArray[np.bool_]:
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        had: NDArray[np.bool_] = self._keys[place] == keys
        return had


@dataclass(frozen=True, eq=False)
class Queries:
    """Whom scores are asked for.

    Attributes:
        users: (n,) rows, -1 for users without one.
        histories: (n, window) rows of items, filled up with -1 on the right.
    """

    users: Index
    histories: Index

    def take(self, rows: Index) -> Queries:
        """Return those at `rows`."""
        return Queries(self.users[rows], self.histories[rows])


def scores_of(model: Model, towers: Towers, queries: Queries, seen: Seen | None) -> Tensor:
    """Return (n, items) scores.

    Args:
        model: reads users and histories.
        towers: what `model.towers()` returned.
        queries: whom to score for.
        seen: with it, what a user had and what the history holds is at minus infinity.
    """
    device = towers.items.device
    users, histories = torch.from_numpy(queries.users).to(device), torch.from_numpy(queries.histories).to(device)
    found = model.queries(towers, users, histories) @ towers.items.T
    if seen is not None:
        read = np.nonzero(queries.histories >= 0)
        for rows, items in (seen.cells(queries.users), (read[0], queries.histories[read])):
            found[torch.from_numpy(rows).to(device), torch.from_numpy(items).to(device)] = -torch.inf
    return found


def queries_of(users: Sequence[int], histories: Sequence[Index], window: int) -> Queries:
    """Return queries of (n) rows of users and histories of rows of items, of which -1 are passed over."""
    known = [history[history >= 0][-window:] for history in histories]
    return Queries(np.asarray(users, dtype=np.int64), padded(known, window))


def padded(histories: Sequence[Index], length: int) -> Index:
    """Return (n, length) histories, filled up with -1 on the right."""
    rows = np.full((len(histories), length), -1, dtype=np.int64)
    for row, history in enumerate(histories):
        rows[row, : len(history)] = history
    return rows
