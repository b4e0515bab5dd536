"""Drift: how far each stage has moved from the one before, in users, items, popularity and predictability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import rel_entr

from peso_cli.data.blocks import Block, Dataset
from peso_cli.data.examples import examples

TOP = 10
"""Length of the lists that recall and NDCG look at."""

Figures = dict[str, float]
"""`recall@10` and `ndcg@10`."""

_Counts = NDArray[np.int64]


@dataclass(frozen=True)
class StageDrift:
    """What has changed from stage t - 1 to stage t. None: unknown, for a stage's data is missing, or undefined.

    All figures are about the stages' own events, not the earlier ones that a block repeats.

    Attributes:
        stage: t, from 2 on.
        new_users: users without earlier events.
        returning_users: users with earlier events who were there in stage t - 1.
        dormant_users: users with earlier events who were not.
        new_items: distinct items that occur in no earlier stage.
        new_item_share: share of the events that are on new items.
        user_overlap: Jaccard index of the users of t - 1 and t: those in both over those in either.
        item_overlap: Jaccard index of the distinct items of t - 1 and t.
        popularity_shift: Jensen-Shannon divergence, in bits (0 to 1), of the distributions of events over items in
            t - 1 and t: H((p + q) / 2) - (H(p) + H(q)) / 2.
        shared_shift: the same over the items that occur in both, each distribution rescaled to them.
        seen_targets: share of the test targets whose item has an event in an earlier stage.
        popularity: how well stage t's test targets are foretold by the popularity of items in stage t - 1. The
            popularity of an item in a stage is how many of the stage's training targets it is. All users get the same
            list, most popular first, among equals the lowest catalog index; an item of popularity 0 is on no list.
        popularity_own: by the popularity of items in stage t itself; what `popularity` falls short of it is lost
            through drift.
        transitions: by item-to-item transitions in stage t - 1. A transition (a, b) is a training target b whose user
            had a just before. For a user whose last item before the test target is a, the items come first that
            followed a, most often first, among equals the more popular; then all others by popularity as above.
        transitions_own: by the transitions and the popularity of stage t itself.

    The figures of a prediction are means over the test targets: recall@10 is 1 where the target is at rank 10 or
    better, ndcg@10 is 1 / log2(rank + 1) there, and both are 0 elsewhere.
    """

    stage: int
    new_users: int | None = None
    returning_users: int | None = None
    dormant_users: int | None = None
    new_items: int | None = None
    new_item_share: float | None = None
    user_overlap: float | None = None
    item_overlap: float | None = None
    popularity_shift: float | None = None
    shared_shift: float | None = None
    seen_targets: float | None = None
    popularity: Figures | None = None
    popularity_own: Figures | None = None
    transitions: Figures | None = None
    transitions_own: Figures | None = None


@dataclass(frozen=True, eq=False)
class _Predictor:
    """What one stage's training targets foretell. Columns stand for items by place, the most popular first.

    Attributes:
        popularity: (items,) how many training targets each item is.
        place: (items,) the position of each item in the list by popularity.
        follows: (items, places) how often the item at each place came right after each item; canonical.
        order: for each entry of `follows`, its position in its row's list, the most frequent first.
    """

    popularity: _Counts
    place: _Counts
    follows: csr_array
    order: _Counts


@dataclass(frozen=True, eq=False)
class _Stage:
    """What one stage's events come to.

    Attributes:
        users: user ids.
        known: ids of those who have earlier events.
        counts: (items,) events on each item.
        targets: (n,) items of the test targets.
        last: (n,) items just before them.
        predictor: what the stage foretells.
    """

    users: frozenset[str]
    known: frozenset[str]
    counts: _Counts
    targets: NDArray[np.int32]
    last: NDArray[np.int32]
    predictor: _Predictor


def drift(dataset: Dataset) -> list[StageDrift]:
    """Return one row for each stage from the second on, in order; a stage whose data is missing has only its number.

    Raises:
        InputError: a stage's data is there but broken.
    """
    items = len(dataset.catalog.items)
    rows: list[StageDrift] = []
    before: _Stage | None = None
    seen: NDArray[np.bool_] | None = np.zeros(items, dtype=bool)
    for stage in range(1, dataset.stages + 1):
        now = _summary(dataset.block(stage), items) if dataset.has(stage) else None
        if stage > 1:
            rows.append(StageDrift(stage) if now is None else _row(stage, before, now, seen))
        seen = None if seen is None or now is None else seen | (now.counts > 0)
        before = now
    return rows


def _summary(block: Block, items: int) -> _Stage:
    test = examples(block, "test", window=1)
    return _Stage(
        users=frozenset(block.users),
        known=frozenset(block.users[row] for row in np.flatnonzero(block.previous_lengths)),
        counts=np.bincount(block.current_events, minlength=items),
        targets=test.target_items,
        last=block.events[test.target - 1],
        predictor=_predictor(block, items),
    )


def _row(stage: int, before: _Stage | None, now: _Stage, seen: NDArray[np.bool_] | None) -> StageDrift:
    new = None if seen is None else (now.counts > 0) & ~seen
    popularity, transitions = (None, None) if before is None else _foretold(before.predictor, now)
    popularity_own, transitions_own = _foretold(now.predictor, now)
    return StageDrift(
        stage=stage,
        new_users=len(now.users) - len(now.known),
        returning_users=None if before is None else len(now.known & before.users),
        dormant_users=None if before is None else len(now.known - before.users),
        new_items=None if new is None else int(new.sum()),
        new_item_share=None if new is None else _share(now.counts[new].sum(), now.counts.sum()),
        user_overlap=None if before is None else _share(len(now.users & before.users), len(now.users | before.users)),
        item_overlap=None if before is None else _item_overlap(before.counts, now.counts),
        popularity_shift=None if before is None else _divergence(before.counts, now.counts),
        shared_shift=None if before is None else _shared_divergence(before.counts, now.counts),
        seen_targets=None if seen is None else _share(seen[now.targets].sum(), len(now.targets)),
        popularity=popularity,
        popularity_own=popularity_own,
        transitions=transitions,
        transitions_own=transitions_own,
    )


def _share(part: int | np.integer[Any], whole: int | np.integer[Any]) -> float | None:
    return int(part) / int(whole) if whole else None


def _item_overlap(before: _Counts, now: _Counts) -> float | None:
    return _share(((before > 0) & (now > 0)).sum(), ((before > 0) | (now > 0)).sum())


def _shared_divergence(before: _Counts, now: _Counts) -> float | None:
    shared = (before > 0) & (now > 0)
    return _divergence(before[shared], now[shared])


def _divergence(before: _Counts, now: _Counts) -> float | None:
    """Return the Jensen-Shannon divergence, in bits, of the distributions that two (items,) counts make."""
    if not before.sum() or not now.sum():
        return None
    p, q = before / before.sum(), now / now.sum()
    middle = (p + q) / 2
    nats = float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2
    # Rounding may lead a hair beyond the bounds.
    return min(max(0.0, nats / math.log(2)), 1.0)


def _predictor(block: Block, items: int) -> _Predictor:
    train = examples(block, "train", window=1)
    popularity = np.bincount(train.target_items, minlength=items)
    place = np.empty(items, dtype=np.int64)
    place[np.argsort(-popularity, kind="stable")] = np.arange(items)
    # A user's first event ever comes after nothing.
    after = train.target[train.history_lengths > 0]
    pairs = (block.events[after - 1], place[block.events[after]])
    follows = csr_array((np.ones(len(after), dtype=np.int64), pairs), shape=(items, items))
    follows.sum_duplicates()
    row = _rows(follows)
    order = np.empty(follows.nnz, dtype=np.int64)
    order[np.lexsort((follows.indices, -follows.data, row))] = np.arange(follows.nnz) - follows.indptr[row]
    return _Predictor(popularity, place, follows, order)


def _rows(matrix: csr_array) -> _Counts:
    """Return (entries,) the row of each entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _foretold(predictor: _Predictor, stage: _Stage) -> tuple[Figures | None, Figures | None]:
    """Return how well popularity, and transitions backed off to it, foretell a stage's test targets."""
    counted = predictor.popularity[stage.targets] > 0
    by_popularity = predictor.place[stage.targets]
    by_transitions = _transition_positions(predictor, stage.last, by_popularity)
    return _figures(by_popularity, counted), _figures(by_transitions, counted)


def _transition_positions(predictor: _Predictor, last: NDArray[np.int32], place: _Counts) -> _Counts:
    """Return (n,) the 0-based positions of targets at given places in the lists for the items before them."""
    follows, width = predictor.follows, len(predictor.place)
    # Entries are in ascending order of this key, so that one search finds a target and all more popular followers.
    keys, wanted = _rows(follows) * width + follows.indices, last.astype(np.int64) * width + place
    at = np.searchsorted(keys, wanted)
    first, followers = follows.indptr[last], np.diff(follows.indptr)[last]
    backed_off = followers + place - (at - first)
    found = np.append(keys, -1)[at] == wanted
    return np.where(found, np.append(predictor.order, 0)[at], backed_off)


def _figures(positions: _Counts, counted: NDArray[np.bool_]) -> Figures | None:
    """Return the mean figures of targets at 0-based positions of lists that hold only what was counted."""
    if not len(positions):
        return None
    hits = counted & (positions < TOP)
    gains = np.where(hits, 1 / np.log2(positions + 2), 0.0)
    return {f"recall@{TOP}": float(hits.mean()), f"ndcg@{TOP}": float(gains.mean())}
