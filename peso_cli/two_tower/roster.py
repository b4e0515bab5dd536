"""Rows of users and items: in order of the stages that brought them, so that what a stage adds comes last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import Examples
from peso_cli.methods.parts import Portion
from peso_cli.training.sequences import Index
from peso_cli.two_tower.parts import Interactions


@dataclass(frozen=True, eq=False)
class Roster:
    """Whom and what a model has rows for.

    Attributes:
        users: a user's id to its row.
        items: (rows,) the catalog index of each item's row.
        row_of: (catalog,) the row of each item, -1 for one without.
    """

    users: dict[str, int]
    items: Index
    row_of: Index

    def interactions(self, portions: Iterable[Portion]) -> Interactions:
        """Return the users and targets of examples, as rows."""
        parts = [(self._user_rows(p.examples), self.row_of[p.examples.target_items], p.weight) for p in portions]
        weights = [np.full(len(users), weight, dtype=np.float32) for users, _, weight in parts]
        return Interactions(
            np.concatenate([users for users, _, _ in parts]),
            np.concatenate([items for _, items, _ in parts]),
            np.concatenate(weights),
        )

    def _user_rows(self, examples: Examples) -> Index:
        rows = np.array([self.users[user] for user in examples.block.users], dtype=np.int64)
        return rows[examples.user]

    def matrix(self, pairs: Interactions) -> csr_matrix:
        """Return the (users, items) matrix with a 1 for each pair that occurs."""
        shape = (len(self.users), len(self.items))
        found = csr_matrix((np.ones(len(pairs), dtype=np.float32), (pairs.users, pairs.items)), shape=shape)
        found.data[:] = 1.0  # pairs that occur several times have been added up
        return found


def roster(dataset: Dataset, stage: int) -> Roster:
    """Return the rows that a model has at a stage: users of the blocks and items of the catalogs up to it."""
    users: dict[str, int] = {}
    known, rows = np.zeros(len(dataset.catalog.items), dtype=bool), [np.zeros(0, dtype=np.int64)]
    for s in range(1, stage + 1):
        for user in dataset.block(s).users:
            users.setdefault(user, len(users))
        visible = dataset.catalog_at(s).visible
        new = ~known if visible is None else visible & ~known
        rows.append(np.flatnonzero(new))
        known |= new
    items = np.concatenate(rows)
    row_of = np.full(len(known), -1, dtype=np.int64)
    row_of[items] = np.arange(len(items))
    return Roster(users, items, row_of)
