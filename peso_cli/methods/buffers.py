"""Which examples of past stages a buffer of bounded size holds.

A sampling ranks all examples of the past; the buffer holds those of the lowest ranks, and a seeded priority of each
example decides between equal ranks. Both follow from the data, the seed and an example's place alone, so that no stage
needs to hand its buffer on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.examples import Examples

Sampling = Literal["reservoir", "recent", "per_user"]
Rows = NDArray[np.int64]
Ranks = NDArray[np.float64]


def buffered(past: Sequence[Examples], size: int, sampling: Sampling, seed: int) -> list[Rows]:
    """Return, for each past stage, the rows of the examples that a buffer of `size` examples holds, in order.

    Args:
        past: all training examples of each past stage, oldest stage first, each in order of users and time.
        size: examples that the buffer holds; all of the past where there are no more.
        sampling: how they are chosen.
        seed: of the run; with the number of a stage it gives the priorities of that stage's examples.
    """
    if not past:
        return []
    priorities = np.concatenate([np.random.default_rng([seed, p.block.stage]).random(len(p)) for p in past])
    held = _least(size, np.concatenate(_RANKS[sampling](past)), priorities)
    ends = np.cumsum([len(found) for found in past])
    parts = np.split(held, np.searchsorted(held, ends[:-1]))
    return [part - (end - len(found)) for part, end, found in zip(parts, ends, past, strict=True)]


def _least(count: int, ranks: Ranks, priorities: Ranks) -> Rows:
    """Return where the `count` lowest ranks are, in order; of equal ranks those of the lowest priorities."""
    if count >= len(ranks):
        return np.arange(len(ranks))
    bound = np.partition(ranks, count - 1)[count - 1]
    below, level = np.flatnonzero(ranks < bound), np.flatnonzero(ranks == bound)
    missing = count - len(below)
    return np.sort(np.concatenate([below, level[np.argpartition(priorities[level], missing - 1)[:missing]]]))


def _alike(past: Sequence[Examples]) -> list[Ranks]:
    """Rank all alike, so that priorities alone decide: a uniform sample of the stream of all past examples.

    An example keeps its priority from stage to stage, as in reservoir sampling by random keys (Efraimidis and Spirakis
    2006, "Weighted random sampling with a reservoir", all weights equal): what a later buffer holds of these stages,
    this one holds too.
    """
    return [np.zeros(len(found)) for found in past]


def _ages(past: Sequence[Examples]) -> list[Ranks]:
    """Rank by age in stages, as far as blocks tell.

    Blocks hold each user's events in order, without times. The i-th of a user's n events of a stage is taken to have
    happened when i/(n + 1) of the stage was over: where the i-th of n events spread evenly is to be expected.
    """
    return [len(past) - number - _passed(found) for number, found in enumerate(past)]


def _passed(found: Examples) -> Ranks:
    """Return how much of the stage was over when each target happened, between 0 and 1."""
    block = found.block
    passed: Ranks = (found.target - block.current[found.user] + 1) / (block.current_lengths[found.user] + 1)
    return passed


def _turns(past: Sequence[Examples]) -> list[Ranks]:
    """Rank by how many newer examples the same user has, whichever stage they are from: each user takes a turn."""
    turns: list[Ranks] = []
    newer: dict[str, int] = {}
    for found in reversed(past):
        users = found.block.users
        own = np.bincount(found.user, minlength=len(users))
        later = np.array([newer.get(user, 0) for user in users], dtype=np.int64)
        turns.append((later + np.cumsum(own) - 1)[found.user] - np.arange(len(found), dtype=np.float64))
        newer.update(zip(users, (later + own).tolist(), strict=True))
    return turns[::-1]


_RANKS: dict[Sampling, Callable[[Sequence[Examples]], list[Ranks]]] = {
    "reservoir": _alike,
    "recent": _ages,
    "per_user": _turns,
}
