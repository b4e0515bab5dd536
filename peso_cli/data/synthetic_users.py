"""The users of the synthetic world: in which stages they come, and which series they like in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from peso_cli.data.synthetic import SyntheticDataset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INTERESTS = np.array([0.6, 0.25, 0.15])
"""How a user's taste divides among the three interests."""
_FEWEST_USERS = 3


def attendance(config: SyntheticDataset, rng: np.random.Generator) -> tuple[Ints, list[Ints]]:
    """Decide who comes when.

    Returns:
        (users,) the first stage of each user, ascending, and for each stage the ascending users present. In a later
        stage they are new, or return from the stage before, or return after a pause (dormant).
    """
    joined, size = _first_stages(config)
    present = [np.flatnonzero(joined == 1)]
    for stage in range(2, config.stages + 1):
        new = np.flatnonzero(joined == stage)
        known = _returning(config, np.flatnonzero(joined < stage), present[-1], max(size - len(new), 0), rng)
        present.append(np.concatenate([known, new]))
    return joined, present


def _first_stages(config: SyntheticDataset) -> tuple[Ints, int]:
    """Return each user's first stage and the size of a later stage, such that stage 1 gets its share of the events."""
    later = config.stages - 1
    if not later:
        return np.ones(config.users, dtype=np.int64), 0
    ratio = (1 - config.base_share) / config.base_share
    first = round(config.users / (1 + ratio * config.new_users))
    sizes = [first] + [len(part) for part in np.array_split(np.arange(config.users - first), later)]
    return np.repeat(np.arange(1, config.stages + 1), sizes), max(round(first * ratio / later), _FEWEST_USERS)


def _returning(config: SyntheticDataset, known: Ints, before: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Choose `count` of the known users: the configured share dormant, the rest from the stage before."""
    absent = np.setdiff1d(known, before)
    dormant = min(max(round(config.dormant_users * count), count - len(before)), len(absent))
    chosen = [rng.choice(absent, dormant, replace=False), rng.choice(before, count - dormant, replace=False)]
    return np.sort(np.concatenate(chosen))


def tastes(config: SyntheticDataset, width: int, joined: Ints, appeal: Floats, rng: np.random.Generator) -> Ints:
    """Give every user three interests, chosen by the appeal of series in the user's first stage, and let them drift.

    From one stage to the next an interest moves with chance `taste_drift`, for all users in the same direction: from
    theme k to theme k + shift, where each stage has its own shift. So the drift of many can be learned from some.

    Args:
        config: the configuration.
        width: number of themes, and of series in each theme.
        joined: (users,) first stage of each user.
        appeal: (stages, series) log-popularity of each series.
        rng: the source of chance.

    Returns:
        (stages, users, 3) the series a user is interested in.
    """
    interests = np.zeros((config.stages, config.users, len(INTERESTS)), dtype=np.int64)
    for stage in range(config.stages):
        fresh = _fresh_interests(config.users, width, appeal[stage], rng)
        moved = (interests[stage - 1] + rng.integers(1, width) * width) % width**2
        drifted = np.where(rng.random(moved.shape) < config.taste_drift, moved, interests[stage - 1])
        interests[stage] = np.where((joined > stage)[:, None], fresh, drifted)
    return interests


def _fresh_interests(users: int, width: int, appeal: Floats, rng: np.random.Generator) -> Ints:
    """Draw three interests: the first two share a theme, the third lies anywhere."""
    chance = np.exp(appeal) / np.exp(appeal).sum()
    main, other = rng.choice(width**2, (2, users), p=chance)
    sister = main // width * width + (main + rng.integers(1, width, users)) % width
    return np.stack([main, sister, other], axis=1)
