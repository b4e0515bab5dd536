"""Ranking the whole catalog with a two-tower model, block by block of users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
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
        if self.known < k:
            raise InputError(f"the model knows {self.known} distinct semantic IDs, fewer than {k} recommendations")
        found = [np.zeros((len(histories), k), dtype=kind) for kind in (np.int64, np.int64, np.float32)]
        for members, scores in self._scored(histories, names):
            for column, block in zip(found, self._best(scores, k), strict=True):
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

    @torch.no_grad()
    def score(
        self, histories: Sequence[History], candidates: Index, names: Sequence[str | None] | None = None
    ) -> NDArray[np.float32]:
        """Return (n, C) scores of (n, C) rows of `catalog.sids`: of the best item that carries each.

        Minus infinity stands for -1, and for semantic IDs of which no item is known or left.
        """
        found = np.full(candidates.shape, -np.inf, dtype=np.float32)
        for members, scores in self._scored(histories, names):
            rows = torch.from_numpy(candidates[members]).to(scores.device)
            best = self._of_sids(scores).gather(1, rows.clamp(min=0)).masked_fill(rows < 0, -torch.inf)
            found[members] = best.float().cpu().numpy()
        return found

    @torch.no_grad()
    def spread(
        self, histories: Sequence[History], rows: Index, names: Sequence[str | None] | None = None
    ) -> tuple[Index, Index]:
        """Return the first K items of (n, K) lists of rows of `catalog.sids`, and (n, K) the place of each one's row.

        The items of a semantic ID stand in the order of their scores, those without one last; -1 where none is left.
        """
        items, places = np.full(rows.shape, -1, dtype=np.int64), np.zeros(rows.shape, dtype=np.int64)
        carriers = np.argsort(self.catalog.sid_of, kind="stable")
        ends = np.searchsorted(self.catalog.sid_of[carriers], np.arange(len(self.catalog.sids) + 1))
        for members, scores in self._scored(histories, names):
            known = np.full((len(members), len(self.roster.row_of)), -np.inf, dtype=np.float32)
            known[:, self.roster.items] = scores.float().cpu().numpy()
            for user, of_item in zip(members.tolist(), known, strict=True):
                alike = [carriers[ends[row] : ends[row + 1]] if row >= 0 else carriers[:0] for row in rows[user]]
                ordered = [group[np.argsort(-of_item[group], kind="stable")] for group in alike]
                listed = np.concatenate(ordered)[: rows.shape[1]]
                items[user, : len(listed)] = listed
                places[user, : len(listed)] = np.repeat(np.arange(len(alike)), list(map(len, alike)))[: len(listed)]
        return items, places

    @cached_property
    def _shown(self) -> Index:
        """(items,) the row of `catalog.sids` of each item that the model knows, -1 for one that isn't visible."""
        shown: Index = self.catalog.sid_of[self.roster.items]
        return shown

    @property
    def known(self) -> int:
        """How many semantic IDs have an item that the model knows."""
        return int(np.unique(self._shown[self._shown >= 0]).size)

    def _scored(
        self, histories: Sequence[History], names: Sequence[str | None] | None
    ) -> Iterator[tuple[Index, Tensor]]:
        """Yield places of users with the scores that they give all items that the model knows, block by block."""
        rows = [
            self.roster.users.get(user, -1) if user is not None else -1 for user in names or [None] * len(histories)
        ]
        queries = queries_of(rows, [self.roster.row_of[history] for history in histories], self.window)
        hidden = torch.from_numpy(self._shown < 0).to(self.towers.items.device)
        for start in range(0, len(histories), BLOCK):
            members = np.arange(start, min(start + BLOCK, len(histories)))
            scores = scores_of(self.model, self.towers, queries.take(members), self.seen)
            yield members, scores.masked_fill(hidden, -torch.inf)

    def _of_sids(self, scores: Tensor) -> Tensor:
        """Return (n, distinct SIDs) the best score of an item that carries each, minus infinity where there is none."""
        of_item = torch.from_numpy(self._shown).to(scores.device)
        of_sid = scores.new_full((len(scores), len(self.catalog.sids)), -torch.inf)
        return of_sid.scatter_reduce_(1, of_item.clamp(min=0).expand_as(scores), scores, "amax")

    def _best(self, scores: Tensor, k: int) -> tuple[Index, Index, Index]:
        """Return (n, k) rows of semantic IDs, catalog indices and scores of items; -1 where none is left."""
        best, items = scores.topk(k)
        best_sids, sids = self._of_sids(scores).topk(k)
        rows, names = sids.masked_fill(best_sids.isneginf(), -1), self.roster.items[items.cpu().numpy()]
        values = best.cpu().numpy()
        return rows.cpu().numpy(), np.where(np.isneginf(values), -1, names), values
