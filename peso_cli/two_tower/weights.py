"""Weights of two-tower models: written, read back, and handed from stage to stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from peso_cli.artifacts import WEIGHTS_FOLDER, Artifact
from peso_cli.errors import RunError
from peso_cli.files import write_tensors
from peso_cli.training.sequences import Index
from peso_cli.two_tower.models import STRATEGY
from peso_cli.two_tower.parts import TowersStart

_FILE = "towers.safetensors"


def write_weights(model: nn.Module, folder: Path) -> None:
    """Write what a model has learnt under an artifact's folder; not what a strategy needed on the way."""
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(STRATEGY)}
    write_tensors(folder / WEIGHTS_FOLDER / _FILE, kept)


def newest(lineage: Sequence[Artifact]) -> int:
    """Return the last stage of a lineage, stage 1 first, that left weights; 0 where none did."""
    return max((stage for stage, artifact in enumerate(lineage, start=1) if artifact.weights), default=0)


def read_weights(artifact: Artifact) -> dict[str, Tensor]:
    """Return the weights that a stage left.

    Raises:
        RunError: they can't be read.
    """
    path = artifact.folder / WEIGHTS_FOLDER / _FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: can't be read ({error}); move the stage's folder away to train it anew") from None


@torch.no_grad()
def put_first(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model; tables of fewer rows than the model's take the first ones."""
    parameters = dict(model.named_parameters())
    for name, held in weights.items():
        parameters[name][: len(held)] = held.to(parameters[name].device)


def inherit(start: TowersStart) -> nn.Module:
    """Return the model with the weights of the stage before, and vectors for what is new as `cold_start` says."""
    put_first(start.model, start.previous)
    if start.cold_start == "neighbours" and "users" in start.previous:
        known = len(start.previous["users"]), len(start.previous["items"])
        _meet(start.model, start.trained.users, start.trained.items, *known)
    return start.model


@torch.no_grad()
def _meet(model: nn.Module, users: Index, items: Index, known_users: int, known_items: int) -> None:
    """Put new users and items on the mean of their known counterparts; those who met none stay as they were drawn."""
    tables: tuple[Tensor, Tensor] = model.users, model.items  # type: ignore[assignment]
    new_user, new_item = users >= known_users, items >= known_items
    for (table, rows), (other, others), chosen in (
        ((tables[0], users), (tables[1], items), new_user & ~new_item),
        ((tables[1], items), (tables[0], users), new_item & ~new_user),
    ):
        into, weights = np.unique(rows[chosen], return_inverse=True)
        if not len(into):
            continue
        total = torch.zeros(len(into), table.shape[1], device=table.device)
        total.index_add_(0, torch.from_numpy(weights.reshape(-1)).to(table.device), other[others[chosen]])
        counts = torch.from_numpy(np.bincount(weights.reshape(-1)).astype(np.float32)).to(table.device)
        table[torch.from_numpy(into).to(table.device)] = total / counts[:, None]
