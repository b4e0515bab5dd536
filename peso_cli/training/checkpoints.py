"""Checkpoints of an unfinished stage: one safetensors file with all that a resumed run needs to be the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from peso_cli.artifacts import Artifact
from peso_cli.errors import InputError, RunError
from peso_cli.files import write_atomically

State = dict[str, Tensor]

FORMAT = "1"
"""Version of a checkpoint's content."""

_OLD = {"progress"}
"""What checkpoints without a checksum have beside their tensors."""

_MEND = "give peso train --repair, or remove it to train this stage anew"


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


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether all numbers of some tensors are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


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
    """Write a checkpoint atomically, with a checksum and the fingerprint of the stage that has begun in its folder."""
    tensors = {
        f"{part}:{n}": t.detach().cpu().contiguous()
        for part, state in checkpoint.parts.items()
        for n, t in state.items()
    }
    stage = Artifact(path.parent)
    metadata = {"format": FORMAT, "progress": json.dumps(checkpoint.progress)}
    metadata["stage"] = str(stage.lineage().get("fingerprint")) if stage.begun else ""
    metadata["checksum"] = _checksum(tensors, metadata)
    write_atomically(path, lambda part: save_file(tensors, part, metadata))


def load_checkpoint(path: Path, stage: str | None = None) -> Checkpoint | None:
    """Read a checkpoint back; None where there is none.

    Args:
        path: the file.
        stage: the fingerprint of the stage that it must be of; None takes any.

    Raises:
        InputError: the file is of another version of peso.
        RunError: the file is there but damaged, or of another stage.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
        progress = json.loads(metadata["progress"])
        _check(tensors, metadata)
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: the checkpoint is damaged ({_words(error)}); {_MEND}") from None
    if (found := metadata.get("format", FORMAT)) != FORMAT:
        raise InputError(
            f"{path}: is of format {found}, this version of peso has format {FORMAT}; finish the stage with the "
            "version that began it, or remove the file to train the stage anew"
        )
    if stage is not None and metadata.get("stage", stage) != stage:
        raise RunError(f"{path}: is the checkpoint of another run; {_MEND}")
    parts: dict[str, State] = {}
    for key, tensor in tensors.items():
        part, name = key.split(":", 1)
        parts.setdefault(part, {})[name] = tensor
    return Checkpoint(parts, progress)


def _check(tensors: State, metadata: Mapping[str, str]) -> None:
    """Raise ValueError unless the checksum is that of the content; checkpoints of old have none."""
    promised = {name: value for name, value in metadata.items() if name != "checksum"}
    if metadata.keys() != _OLD and metadata["checksum"] != _checksum(tensors, promised):
        raise ValueError("its checksum is another")
    if misnamed := [name for name in tensors if ":" not in name]:
        raise ValueError(f"it holds {misnamed[0]!r}")


def _words(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]


def _checksum(tensors: State, metadata: Mapping[str, str]) -> str:
    """Return the hex SHA-256 of tensors on the CPU (names, types, shapes, bytes) and of what is kept beside them."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
