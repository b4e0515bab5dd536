"""What strategies that hold vectors to references have in common: clusters of items, shifts of users, the penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from peso_cli.methods.parts import Penalty, Step
from peso_cli.semantic_ids.clustering import clustered
from peso_cli.semantic_ids.residual import nearest
from peso_cli.training.sequences import Index
from peso_cli.two_tower import losses
from peso_cli.two_tower.losses import Floats
from peso_cli.two_tower.models import FactorModel
from peso_cli.two_tower.parts import PairBatches, StrategyStart, Towers, batch_rows

Weigh = Callable[[Index], Tensor]
"""Rows of users to the weights of their terms."""

_ITERATIONS = 100
"""Most rounds of k-means."""


def to_previous(start: StrategyStart, strength: float, temperature: float, weigh: Weigh | None) -> Penalty:
    """Return the penalty that holds users, weighted, and items to the stage before.

    Raises:
        InputError: the model has no vectors of users.
    """
    model, before = cast(FactorModel, start.model), start.previous
    users_before = start.previous_users()

    def value(step: Step) -> Tensor:
        users, items = batch_rows(cast(Sequence[PairBatches], step.batches))
        users, items = users[users < len(users_before)], items[items < len(before.items)]
        now = model.towers()
        assert now.users is not None
        weights = weigh(users) if weigh is not None else None
        of_users = losses.info_nce(_at(now.users, users), _at(users_before, users), temperature, weights)
        return strength * (of_users + losses.info_nce(_at(now.items, items), _at(before.items, items), temperature))

    return Penalty(value)


def to_both(
    start: StrategyStart, strength: float, temperature: float, clusters: int, kept: tuple[float, float]
) -> Penalty:
    """Return the penalty that holds some users to the forward model and some to the stage before.

    Args:
        start: what the stage begins from.
        strength, temperature: of the penalty.
        clusters: how many clusters of items.
        kept: the shares of users that keep their plasticity and their stability weights.

    Raises:
        InputError: the model has no vectors of users.
    """
    model, before, returning = cast(FactorModel, start.model), start.previous_users(), start.returning()
    forward = start.forward()
    ahead = cast(Tensor, forward.users)
    shift = user_shifts(start.previous, forward, returning, clusters, temperature, start.seed)
    plasticity, stability = (
        _spread(losses.top_share(weights, share), returning, before)
        for weights, share in zip((shift, 1 - shift), kept, strict=True)
    )

    def value(step: Step) -> Tensor:
        users, _ = batch_rows(cast(Sequence[PairBatches], step.batches))
        users = users[users < len(before)]
        now = _at(cast(Tensor, model.towers().users), users)
        to_forward = losses.info_nce(now, _at(ahead, users), temperature, _at(plasticity, users))
        return strength * (to_forward + losses.info_nce(now, _at(before, users), temperature, _at(stability, users)))

    return Penalty(value)


def user_shifts(
    previous: Towers, forward: Towers, users: Index, clusters: int, temperature: float, seed: int
) -> Floats:
    """Return (n,) the Jensen-Shannon shifts of some users' shares of item clusters, stretched to reach from 0 to 1.

    Clusters are of the previous vectors of items; in the forward model each centre is the mean of the same items.
    Where all users shifted alike, the shifts are 0.
    """
    assert previous.users is not None
    assert forward.users is not None
    members = item_clusters(previous.items, clusters, seed)
    then = losses.shares(_at(previous.users, users), _centers(previous.items, members), temperature)
    now = losses.shares(_at(forward.users, users), _centers(forward.items, members), temperature)
    shift = losses.jensen_shannon(then.double().cpu().numpy(), now.double().cpu().numpy())
    lowest, reach = shift.min(initial=1.0), np.ptp(shift) if len(shift) else 0.0
    return (shift - lowest) / reach if reach > 0 else np.zeros_like(shift)


def imitation_weights(start: StrategyStart, clusters: int, temperature: float, hidden: int) -> Weigh:
    """Put a network under `model.strategy` and return what it makes of the shifts of a step's users: weights of mean 1.

    Raises:
        InputError: the model has no vectors of users.
    """
    before, items, trained = start.previous_users(), start.previous.items, start.trained
    centers = _centers(items, item_clusters(items, clusters, start.seed))
    known = (trained.users < len(before)) & (trained.items < len(items))
    total = torch.zeros_like(before).index_add_(0, _on(before, trained.users[known]), _at(items, trained.items[known]))
    shift = losses.shares(total, centers, temperature) - losses.shares(before, centers, temperature)
    network = nn.Sequential(nn.Linear(shift.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 1)).to(before.device)
    cast(FactorModel, start.model).strategy["imitation"] = network

    def weigh(users: Index) -> Tensor:
        return len(users) * torch.softmax(network(_at(shift, users))[:, 0], dim=0)

    return weigh


def item_clusters(items: Tensor, clusters: int, seed: int) -> Index:
    """Return (items,) the cluster of each of (items, width) vectors, by k-means."""
    vectors = items.float().cpu().numpy()
    found = clustered(vectors, min(clusters, len(vectors)), _ITERATIONS, seed % 2**32)
    return nearest(vectors, found).astype(np.int64)


def _centers(items: Tensor, members: Index) -> Tensor:
    """Return (clusters, width) the mean of the vectors of each cluster; `members` are those of the first items."""
    counts = np.maximum(np.bincount(members), 1).astype(np.float32)
    total = torch.zeros(len(counts), items.shape[1], device=items.device)
    return total.index_add_(0, _on(items, members), items[: len(members)]) / _on(items, counts)[:, None]


def _spread(weights: Floats, rows: Index, like: Tensor) -> Tensor:
    """Return (users,) weights that lie at some rows and are 0 elsewhere."""
    table = torch.zeros(len(like), device=like.device)
    table[_on(like, rows)] = _on(like, weights.astype(np.float32))
    return table


def _at(table: Tensor, rows: Index) -> Tensor:
    return table.index_select(0, _on(table, rows))


def _on(like: Tensor, values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device)
