"""User groups: who is new in a stage, who was there just before, and who comes back after a pause."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Block

GROUPS = ("new", "returning", "dormant", "unknown")
"""All group names, in the order in which tables show them."""


def user_groups(block: Block, before: Block | None) -> NDArray[np.str_]:
    """Tell the group of every user of a block.

    * `new`: has no earlier events.
    * `returning`: has earlier events and is among the users of the stage just before.
    * `dormant`: has earlier events and is not among them.
    * `unknown`: has earlier events, and the stage just before is not available.

    Args:
        block: the stage.
        before: the stage just before; None if there is none or it is not available.

    Returns:
        (users,) group names, in the order of `block.users`.
    """
    if before is None:
        experienced: NDArray[np.str_] = np.full(len(block.users), "unknown")
    else:
        recent = set(before.users)
        experienced = np.where([user in recent for user in block.users], "returning", "dormant")
    return np.where(block.previous_lengths == 0, "new", experienced)
