"""The synthetic world: the exact chance of every next item, the events drawn from it, and the figures it allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Block, block_from_lists
from peso_cli.data.synthetic_items import Structure, lay_out, make_catalog
from peso_cli.data.synthetic_users import INTERESTS, attendance, tastes
from peso_cli.errors import InputError

if TYPE_CHECKING:
    from peso_cli.data.synthetic import SyntheticDataset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Events = NDArray[np.int32]

_FEWEST_EVENTS = 5
_FOLLOW = np.array([0.7, 0.2, 0.1])
_THEME_SPREAD, _SERIES_SPREAD, _EDITION_SPREAD, _ITEM_SPREAD = 0.7, 0.7, 1.2, 0.5
_DEPTH = 10
_CELLS = 2**20


class World:
    """A generated world. Everything follows from the configuration; stages are drawn in order, when first asked for.

    A user has three interests, each a series. The chance of the next item is a mixture: go on in the series of the
    last item (`follow`), else pick from an interest by the stage's popularity, or by popularity alone (`explore`).
    Items that are not launched, or lie among the last `items // 2` of the user, have chance zero.

    Attributes:
        catalog: all items, with those of later stages.
    """

    def __init__(self, config: SyntheticDataset) -> None:
        """Lay out the items, the users' attendance, the trends and the tastes; draw no events yet."""
        rng = np.random.default_rng([config.seed])
        self._config = config
        self._structure = lay_out(config, rng)
        self.catalog = make_catalog(config, self._structure, rng)
        self._joined, self._present = attendance(config, rng)
        appeal, self._score = _trends(config, self._structure, rng)
        self._interests = tastes(config, self._structure.width, self._joined, appeal, rng)
        self._histories = [np.zeros(0, np.int32)] * config.users
        self._blocks: list[Block] = []

    def block(self, stage: int) -> Block:
        """Return the block of a stage.

        Raises:
            InputError: there is no such stage.
        """
        self._require(stage)
        while len(self._blocks) < stage:
            self._blocks.append(self._draw_block(len(self._blocks) + 1))
        return self._blocks[stage - 1]

    def figures(self, stage: int, known: int | None = None) -> dict[str, float]:
        """Return expected Recall@1, 5, 10 and NDCG@5, 10 of `ranking` on a stage's test events.

        The mean over users of the true chance that lies in the ranked semantic IDs; with `known` left out, the ceiling.

        Raises:
            InputError: there is no such stage.
        """
        return _figures_at_ranks(self._ranked(stage, known)[1].mean(axis=0))

    def ranking(self, stage: int, known: int | None = None) -> Ints:
        """Rank semantic IDs for the last event of each of a stage's users as one who knows the generator would.

        Args:
            stage: the stage.
            known: believe in the tastes and trends of this stage (tastes of users who joined after it: when they
                joined) instead of the true ones of `stage`.

        Returns:
            (users, 10) rows of `catalog.sids`, best first.

        Raises:
            InputError: there is no such stage.
        """
        return self._ranked(stage, known)[0]

    def _ranked(self, stage: int, known: int | None) -> tuple[Ints, Floats]:
        """(users, 10) the ranked semantic IDs, and (users, 10) the true chance of each."""
        block = self.block(stage)
        believed = stage if known is None else known
        self._require(believed)
        users = self._present[stage - 1]
        histories = [events[:-1] for events in np.split(block.events, block.starts[1:-1])]
        recent = self._recent(histories, max(map(len, histories)))
        ranked = np.zeros((len(users), _DEPTH), dtype=np.int64)
        chances = np.zeros(ranked.shape)
        for rows in self._chunks(len(users)):
            belief, truth = (self._sid_chance(stage, law, users[rows], recent[rows]) for law in (believed, stage))
            ranked[rows] = np.argsort(-belief, axis=1, kind="stable")[:, :_DEPTH]
            chances[rows] = np.take_along_axis(truth, ranked[rows], axis=1)
        return ranked, chances

    def _require(self, stage: int) -> None:
        if not 1 <= stage <= self._config.stages:
            raise InputError(f"stage={stage}: {self._config.name} has stages 1 to {self._config.stages}")

    def _next_item(self, stage: int, known: int, users: Ints, recent: Ints) -> Floats:
        """Return the chance of each next item of some users.

        Args:
            stage: the stage, which decides what is launched.
            known: the stage whose trends and tastes hold.
            users: (rows,) the users.
            recent: (rows, width) their last items, oldest first, padded in front with the number of items.

        Returns:
            (rows, items) probabilities.
        """
        config, structure = self._config, self._structure
        launched = structure.launch <= stage
        popularity = np.where(launched, np.exp(self._score[known - 1]), 0.0)
        within = popularity / np.bincount(structure.series, popularity)[structure.series]
        taste = self._taste(np.maximum(known, self._joined[users]), users)
        chance = np.zeros((len(users), config.items + 1))
        chance[:, :-1] = (1 - config.explore) * taste[:, structure.series] * within
        chance[:, :-1] += config.explore * popularity / popularity.sum()
        chance *= 1 - config.follow
        rows = np.arange(len(users))[:, None]
        chance[rows, structure.followers[recent[:, -1]]] += config.follow * _FOLLOW
        np.put_along_axis(chance, recent, 0.0, axis=1)
        chance = chance[:, :-1] * launched
        chance /= chance.sum(axis=1, keepdims=True)
        return chance

    def _taste(self, stages: Ints, users: Ints) -> Floats:
        """(rows, series) how each user's taste, as of a stage, divides among the series."""
        taste = np.zeros((len(users), self._structure.width**2))
        np.add.at(taste, (np.arange(len(users))[:, None], self._interests[stages - 1, users]), INTERESTS)
        return taste

    def _sid_chance(self, stage: int, known: int, users: Ints, recent: Ints) -> Floats:
        """(rows, distinct SIDs) the chance of each next semantic ID: that of all its items together."""
        order = np.argsort(self.catalog.sid_of, kind="stable")
        firsts = np.searchsorted(self.catalog.sid_of[order], np.arange(len(self.catalog.sids)))
        chance: Floats = np.add.reduceat(self._next_item(stage, known, users, recent)[:, order], firsts, axis=1)
        return chance

    def _draw_block(self, stage: int) -> Block:
        rng = np.random.default_rng([self._config.seed, stage])
        users = self._present[stage - 1]
        extra = rng.geometric(1 / (1 + self._config.mean_events - _FEWEST_EVENTS), len(users)) - 1
        previous = [self._histories[user] for user in users]
        current = self._draw_events(stage, users, previous, _FEWEST_EVENTS + extra, rng)
        for user, events in zip(users, current, strict=True):
            self._histories[user] = np.concatenate([self._histories[user], events])
        names = [f"user{user}" for user in users]
        return block_from_lists(stage, dict(zip(names, zip(previous, current, strict=True), strict=True)))

    def _draw_events(
        self, stage: int, users: Ints, previous: Sequence[Events], lengths: Ints, rng: np.random.Generator
    ) -> list[Events]:
        """Draw each user's events of a stage, one step for all users at a time."""
        current = np.full((len(users), int(lengths.max())), self._config.items)
        luck = 1.0 - rng.random(current.shape)  # never 0, so that no item of chance 0 is ever picked
        recent = self._recent(previous, max(map(len, previous)) + current.shape[1])
        for step, drawn in enumerate(current.T):
            active = np.flatnonzero(lengths > step)
            for rows in (active[part] for part in self._chunks(len(active))):
                drawn[rows] = _pick(self._next_item(stage, stage, users[rows], recent[rows]), luck[rows, step])
            recent = np.column_stack([recent[:, 1:], drawn])
        return [events[:length].astype(np.int32) for events, length in zip(current, lengths, strict=True)]

    def _recent(self, histories: Sequence[Events], width: int) -> Ints:
        """(rows, width) the last items of each history, padded in front; no wider than what may not come again."""
        width = max(1, min(width, self._config.items // 2))
        recent = np.full((len(histories), width), self._config.items)
        for row, history in zip(recent, histories, strict=True):
            if len(history):
                row[-len(history) :] = history[-width:]
        return recent

    def _chunks(self, rows: int) -> Iterator[slice]:
        """Cut rows so that a table of rows by items stays small."""
        size = max(1, _CELLS // self._config.items)
        return (slice(start, start + size) for start in range(0, rows, size))


def _trends(config: SyntheticDataset, structure: Structure, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the log-popularity of series (stages, series) and of items (stages, items)."""

    def walk(size: int, spread: float) -> Floats:
        """(stages, size) a walk whose spread stays the same, of which `trend` is renewed at each step."""
        steps = rng.normal(scale=spread, size=(config.stages, size))
        for before, step in pairwise(steps):
            step[:] = np.sqrt(1 - config.trend**2) * before + config.trend * step
        return steps

    appeal = np.repeat(walk(structure.width, _THEME_SPREAD), structure.width, axis=1)
    appeal += walk(structure.width**2, _SERIES_SPREAD)
    fashion = walk(int(structure.edition.max()) + 1, _EDITION_SPREAD)[:, structure.edition]
    return appeal, appeal[:, structure.series] + fashion + walk(config.items, _ITEM_SPREAD)


def _pick(chance: Floats, luck: Floats) -> Ints:
    """(rows,) the item in each row of probabilities (rows, items) that a number in (0, 1] falls on."""
    reached = chance.cumsum(axis=1)
    item: Ints = (reached < luck[:, None] * reached[:, -1:]).sum(axis=1)
    return item


def _figures_at_ranks(hit: Floats) -> dict[str, float]:
    """Return the metrics from the mean chance (10,) that the target is at each rank."""
    recall = hit.cumsum()
    ndcg = (hit / np.log2(np.arange(2, len(hit) + 2))).cumsum()
    figures = {f"recall@{k}": float(recall[k - 1]) for k in (1, 5, 10)}
    return figures | {f"ndcg@{k}": float(ndcg[k - 1]) for k in (5, 10)}
