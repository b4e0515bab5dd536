"""Checkpoints of an unfinished stage: one safetensors file with all that a resumed run needs to be the same run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from peso_cli.errors import RunError
from peso_cli.files import write_atomically

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An unfinished stage.

    Attributes:
        parts: named groups of tensors: the trained parameters, the optimiser's state, the best parameters so far.
        progress: the JSON-able rest: counts, early-stopping memory, history, position in the log.
    """

    parts: dict[str, State]
    progress: dict[str, Any]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, by name; tied ones appear once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_state(model: nn.Module) -> State:
    """Return a copy of what trains, on the CPU."""
    return {name: p.detach().to("cpu", copy=True) for name, p in trainable(model).items()}


@torch.no_grad()
def restore_state(model: nn.Module, state: State) -> None:
    """Write a copied state back into a model."""
    for name, parameter in trainable(model).items():
        parameter.copy_(state[name])


def optimiser_state(optimiser: torch.optim.Optimizer, model: nn.Module) -> State:
    """Return AdamW's moments and step counts by parameter name."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in trainable(model).items()
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, model: nn.Module, state: State) -> None:
    """Write moments and step counts back into an optimiser."""
    parameters = trainable(model)
    for entry, value in state.items():
        name, key = entry.rsplit("/", 1)
        parameter = parameters[name]
        optimiser.state[parameter][key] = value if key == "step" else value.to(parameter.device)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    tensors = {f"{part}:{n}": t.contiguous() for part, state in checkpoint.parts.items() for n, t in state.items()}
    metadata = {"progress": json.dumps(checkpoint.progress)}
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint back; None where there is none.

    Raises:
        RunError: the file is there but damaged.
    """
    if not path.exists():
        return None
    parts: dict[str, State] = {}
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads((file.metadata() or {})["progress"])
            for key in file.keys():  # noqa: SIM118  (not a dict)
                part, name = key.split(":", 1)
                parts.setdefault(part, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({error}); remove it to train this stage anew") from None
    return Checkpoint(parts, progress)
