"""Vectors of items that are learnt together with those of the users who had them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids.parts import Floats, Items
from peso_cli.semantic_ids.threads import one_thread
from peso_cli.two_tower.batches import Pairs
from peso_cli.two_tower.graph import adjacency
from peso_cli.two_tower.models import FactorModel
from peso_cli.two_tower.parts import Interactions
from peso_cli.two_tower.scores import Seen

if TYPE_CHECKING:
    from peso_cli.semantic_ids.embeddings.collaborative import Collaborative
    from peso_cli.stages import Display


def embed_by_users(settings: Collaborative, items: Items, display: Display) -> Floats:
    """Return (items, width) vectors, zeros for items that nobody had.

    Raises:
        InputError: there are no events.
        RunError: training diverged.
    """
    histories, count = items.histories(), len(items.ids)
    pairs = interactions_of(histories)
    if not len(pairs):
        raise InputError(f"embedding={settings.name}: stage 1 has no events to learn from; use an embedding of texts")
    present = np.unique(pairs.items)
    display.say(
        f"{settings.name}: {count - len(present)} of {count} items have no events in stage 1; these get the zero vector"
    )
    vectors = np.zeros((count, settings.width), dtype=np.float32)
    with one_thread():
        # Rows for the items that somebody had, so that no other is ever a negative.
        rows = Interactions(pairs.users, np.searchsorted(present, pairs.items), pairs.weights)
        vectors[present] = _trained(settings, rows, (len(histories), len(present)), display)
    return vectors


def interactions_of(histories: Sequence[NDArray[np.int32]]) -> Interactions:
    """Return each user's events as pairs of a user's and an item's row."""
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    items = np.concatenate([np.zeros(0, dtype=np.int64), *histories]).astype(np.int64)
    return Interactions(users, items, np.ones(len(items), dtype=np.float32))


def _trained(settings: Collaborative, pairs: Interactions, shape: tuple[int, int], display: Display) -> Floats:
    """Return (items, width) vectors after training."""
    edges = csr_matrix((np.ones(len(pairs), dtype=np.float32), (pairs.users, pairs.items)), shape=shape)
    edges.data[:] = 1.0
    torch.manual_seed(settings.seed)
    graph = adjacency(edges, torch.device("cpu"))
    model = FactorModel(*shape, settings.width, settings.initial_std, graph, settings.layers)
    batches = Pairs(pairs, Seen(edges), settings.batch, settings.l2)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    tick = display.bar(f"{settings.name}: learning")
    for epoch in range(settings.epochs):
        loss = _epoch(model, optimizer, batches, [settings.seed, epoch])
        if not np.isfinite(loss):
            raise RunError(f"embedding={settings.name}: the loss is {loss}; lower embedding.learning_rate")
        tick(epoch + 1, settings.epochs, f"loss {loss:.4f}")
    with torch.no_grad():
        found: Floats = model.towers().items.numpy().copy()
    return found


def _epoch(model: FactorModel, optimizer: torch.optim.Optimizer, batches: Pairs, seed: Sequence[int]) -> float:
    """Train on every event once; return the mean loss."""
    total = mass = 0.0
    for members in batches.plan(seed):
        batch = batches.batch(members)
        loss = batch.loss(model, 1.0)
        optimizer.zero_grad()
        (loss / batch.mass).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total, mass = total + float(loss.detach()), mass + batch.mass
    return total / mass
