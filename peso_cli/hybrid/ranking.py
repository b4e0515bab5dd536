"""Ranking with a hybrid: the candidates of both parts, fused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from peso_cli.decoding.leave_one_out import LeftOut
from peso_cli.errors import InputError
from peso_cli.evaluation.ranking import History, Ranker, Ranking
from peso_cli.hybrid.fusions import Fusion, Pool, pool_of, with_exact
from peso_cli.hybrid.settings import GENERATIVE, TWO_TOWER
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.two_tower.ranking import TowerRanker

Index = NDArray[np.int64]
Names = Sequence[str | None] | None


@dataclass(frozen=True, eq=False)
class Candidates:
    """What the parts bring for n users.

    Attributes:
        lists: the ranking of each part by its role.
        pool: the candidates of both.
    """

    lists: Mapping[str, Ranking]
    pool: Pool


@dataclass(frozen=True, eq=False)
class Parts:
    """Both models over one catalog.

    Attributes:
        generative, two_tower: the rankers.
        catalog: what they recommend from.
        most: how many semantic IDs each brings, as far as there are that many.
    """

    generative: Ranker
    two_tower: TowerRanker
    catalog: Catalog
    most: int

    def within(self, catalog: Catalog) -> Parts:
        """Return the same models over another catalog."""
        return Parts(self.generative.within(catalog), self.two_tower.within(catalog), catalog, self.most)

    def candidates(
        self,
        histories: Sequence[History],
        names: Names,
        k: int,
        exact: bool,
        tick: Callable[[int, int], None] = lambda done, total: None,
    ) -> Candidates:
        """Return the candidates for (n) histories and ids of users, at least k of each part; `exact`: scored by both.

        Raises:
            InputError: a part can't bring k.
            RunError: a score isn't finite.
        """
        most = max(k, min(self.most, len(self.catalog.sids), self.two_tower.known))
        language = self.generative.rank(histories, most, tick)
        towers = self.two_tower.rank(histories, most, names=names)
        listed = self.two_tower.score(histories, towers.rows, names)
        pool = pool_of((language.rows, towers.rows), (language.scores.astype(np.float64), listed.astype(np.float64)))
        if exact:
            scores = self.generative.score(histories, pool.rows), self.two_tower.score(histories, pool.rows, names)
            pool = with_exact(pool, *scores)
        return Candidates({GENERATIVE: language, TWO_TOWER: towers}, pool)


@dataclass(frozen=True, eq=False)
class HybridRanker:
    """Both models, and the fusion that the stage chose."""

    parts: Parts
    fusion: Fusion

    def within(self, catalog: Catalog) -> HybridRanker:
        """Return a ranker with the same models whose recommendations come from another catalog."""
        return self if catalog is self.parts.catalog else replace(self, parts=self.parts.within(catalog))

    def rank(
        self,
        histories: Sequence[History],
        k: int,
        tick: Callable[[int, int], None] = lambda done, total: None,
        names: Names = None,
    ) -> Ranking:
        """Rank semantic IDs for (n) users; the items of each stand in the order in which the two-tower model has them.

        Items that it doesn't know, or that it leaves out because the user had them, stand behind the others of their
        semantic ID in the catalog's order.

        Raises:
            InputError: the beam, the candidates or the catalog are too few for k.
            RunError: a score isn't finite.
        """
        found = self.parts.candidates(histories, names, k, self.fusion.kind == "rescored", tick)
        rows, scores = self.fusion.best(found.pool, k)
        items, place = self.parts.two_tower.spread(histories, rows, names)
        values = np.where(items >= 0, np.take_along_axis(scores, place, axis=1), -np.inf)
        lists = {role: ranking.top(k) for role, ranking in found.lists.items()}
        return Ranking(rows, values.astype(np.float32), items, lists)

    def leave_one_out(self, history: History, candidates: Index, name: str | None = None) -> LeftOut:
        """Refuse: a place in a fused list is the work of two models.

        Raises:
            InputError: always.
        """
        raise InputError(
            "--why: a hybrid's list is made of two; ask its language model or its two-tower model by itself"
        )
