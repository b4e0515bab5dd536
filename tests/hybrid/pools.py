"""A pool of one user, small enough to be fused by hand, and small hybrid runs."""

from __future__ import annotations

import numpy as np
from commands.running import SMALL, WORLD
from two_tower.towers import TOWERS

from peso_cli.hybrid.fusions import Pool, pool_of, with_exact

FIRST, SECOND = np.array([[3, 1]]), np.array([[1, 2]])
ENDLESS = -np.inf

ARGUMENTS = (
    *WORLD,
    "method=hybrid",
    f"backbone.generative.settings={[word for word in SMALL if word.startswith(('backbone.', 'trainer.'))]}",
    f"backbone.two_tower.settings={[word for word in TOWERS if word.startswith(('backbone.', 'trainer.'))]}",
    "tracker=none",
    "device=cpu",
)


def small_pool() -> Pool:
    """3 and 1 of the first list, 1 and 2 of the second; the second model has no score of 3."""
    pool = pool_of((FIRST, SECOND), (np.array([[-1.0, -2.0]]), np.array([[5.0, 4.0]])))
    return with_exact(pool, np.array([[-1.0, -2.0, ENDLESS, -3.0]]), np.array([[ENDLESS, 5.0, ENDLESS, 3.0]]))
