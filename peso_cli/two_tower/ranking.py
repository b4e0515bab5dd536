"""Ranking the whole catalog with a two-tower model, block by block of users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from peso_cli.decoding.leave_one_out import LeftOut, shortened
from peso_cli.errors import InputError
from peso_cli.evaluation.ranking import History, Ranking
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.training.sequences import Index
from peso_cli.two_tower.models import Model
from peso_cli.two_tower.parts import Towers
from peso_cli.two_tower.roster import Roster
from peso_cli.two_tower.scores import Seen, queries_of, scores_of

BLOCK = 256
"""Users who are ranked for at once."""


@dataclass(frozen=True, eq=False)
class TowerRanker:
    """A trained model that ranks a catalog's items for users.

    No item is drawn: every visible item that the model knows is ranked. An item that came in after the model's stage
    has no vector and is never recommended.

    Attributes:
        model: in evaluation mode.
        towers: its vectors.
        roster: whom and what it has rows for.
        catalog: what is recommended from.
        window: the most items of a history.
        seen: see `scores_of`.
    """

    model: Model
    towers: Towers
    roster: Roster
    catalog: Catalog
    window: int
    seen: Seen | None

    def within(self, catalog: Catalog) -> TowerRanker:
        """Return a ranker with the same model whose recommendations come from another catalog."""
        return self if catalog is self.catalog else replace(self, catalog=catalog)

    @torch.no_grad()
    def rank(
        self,
        histories: Sequence[History],
        k: int,
        tick: Callable[[int, int], None] = lambda done, total: None,
        names: Sequence[str | None] | None = None,
    ) -> Ranking:
        """Rank for (n) users by their ids and their histories of catalog indices, oldest first.

        The list of semantic IDs that figures of the kind `sid` are taken of orders them by the best score of an item
        that carries each: it is what remains of the list of all items when only the first item of each semantic ID
        stays.

        Raises:
            InputError: the catalog is too small for k.
        """
        shown = self.catalog.sid_of[self.roster.items]
        known = np.unique(shown[shown >= 0]).size
        if known < k:
            raise InputError(f"the model knows {known} distinct semantic IDs, fewer than {k} recommendations")
        rows = [
            self.roster.users.get(user, -1) if user is not None else -1 for user in names or [None] * len(histories)
        ]
        queries = queries_of(rows, [self.roster.row_of[history] for history in histories], self.window)
        found = [np.zeros((len(histories), k), dtype=kind) for kind in (np.int64, np.int64, np.float32)]
        for start in range(0, len(histories), BLOCK):
            members = np.arange(start, min(start + BLOCK, len(histories)))
            scores = scores_of(self.model, self.towers, queries.take(members), self.seen)
            for column, block in zip(found, self._best(scores, shown, k), strict=True):
                column[members] = block
            tick(int(members[-1]) + 1, len(histories))
        sids, items, values = found
        return Ranking(sids, values.astype(np.float32), items)

    @torch.no_grad()
    def leave_one_out(self, history: History, candidates: Index, name: str | None = None) -> LeftOut:
        """Return the scores of (C,) items by a history of catalog indices, whole and without each item.

        Raises:
            InputError: the model knows the user by a vector, so that the history tells it nothing.
        """
        if self.towers.users is not None and name in self.roster.users:
            raise InputError(
                f"--why: the model has a vector of its own for user {name}, whatever the history; ask for a history by "
                "hand (--history), or a backbone that reads histories (sasrec, or a language model)"
            )
        rows = [self.roster.row_of[each] for each in shortened(history)]
        queries = queries_of([-1] * len(rows), rows, self.window)
        scores = scores_of(self.model, self.towers, queries, None).double().cpu().numpy()
        found = scores[:, self.roster.row_of[candidates]]
        return LeftOut(found[0], found[1:])

    def _best(self, scores: Tensor, shown: Index, k: int) -> tuple[Index, Index, Index]:
        """Return (n, k) rows of semantic IDs, catalog indices and scores of items; -1 where none is left."""
        of_item = torch.from_numpy(shown).to(scores.device)
        scores = scores.masked_fill(of_item < 0, -torch.inf)
        best, items = scores.topk(k)
        of_sid = scores.new_full((len(scores), len(self.catalog.sids)), -torch.inf)
        of_sid.scatter_reduce_(1, of_item.clamp(min=0).expand_as(scores), scores, "amax")
        best_sids, sids = of_sid.topk(k)
        rows, names = sids.masked_fill(best_sids.isneginf(), -1), self.roster.items[items.cpu().numpy()]
        values = best.cpu().numpy()
        return rows.cpu().numpy(), np.where(np.isneginf(values), -1, names), values
