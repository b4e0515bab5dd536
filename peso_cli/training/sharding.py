"""Frozen weights spread over the processes of a run: each keeps a part of every layer, and all of it only in use.

PyTorch's fully sharded data parallel, version 2 (`fully_shard`), over what doesn't train. What trains is small beside
it and whole in every process, so that penalties, optimiser and checkpoints don't know of it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from peso_cli import processes
from peso_cli.errors import InputError
from peso_cli.methods.gradients import without_dropout
from peso_cli.training.layouts import Batch
from peso_cli.training.steps import label_loss


def shard_frozen(model: nn.Module) -> None:
    """Spread the frozen weights of a model's layers over all processes.

    Raises:
        InputError: no weight of a layer is frozen.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    decoder: Any = model.get_decoder()  # type: ignore[operator]
    if all(parameter.requires_grad for parameter in decoder.layers.parameters()):
        raise InputError("trainer.shard=frozen: all weights train in this stage; give trainer.shard=none")
    mesh = init_device_mesh(next(model.parameters()).device.type, (processes.count(),))
    for layer in decoder.layers:
        trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)


def keep_pace(model: nn.Module, batch: Batch, passes: int, backward: bool) -> None:
    """Run passes that count for nothing, in which the other processes get this one's part of the weights.

    Args:
        model: the sharded model.
        batch: what to pass through it.
        passes: how many the other processes have more than this one.
        backward: whether they take gradients.
    """
    with without_dropout(model):
        for _ in range(passes):
            loss = label_loss(model, batch, 1.0)
            if backward:
                (0.0 * loss).backward()  # type: ignore[no-untyped-call]
