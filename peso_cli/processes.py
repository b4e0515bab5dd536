"""The processes of one run, as `torchrun` or `accelerate launch` start them: each works on a share of the data.

What one of them finds is added up over all, so that all go on from the same numbers; only the first one writes and
speaks. A run that is started in the ordinary way is one process, for which nothing here does anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from peso_cli.errors import InputError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_LONGEST_WAIT = timedelta(days=30)
"""The first process may wait for another run's stage; that a process has died is noticed by other means."""

_BUCKET = 1 << 24
"""Most numbers that are added up at once, but for a larger single tensor."""

T = TypeVar("T")


class LostProcessError(RunError):
    """Another process of the run has ended before its work was done."""

    def __init__(self) -> None:
        super().__init__("another process of this run has ended; the same command goes on from the last checkpoint")


def count() -> int:
    """Return how many processes work on the run together."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Return the number of this process, from 0."""
    return _number("RANK", 0)


def first() -> bool:
    """Tell whether this is the process that writes and speaks."""
    return rank() == 0


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def share(work: Sequence[T]) -> Sequence[T]:
    """Return what of some work, the same in all processes, is this one's: every n-th piece."""
    return work[rank() :: count()]


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Connect the processes of the run while the block runs.

    Args:
        device: the setting of this name; of several GPUs each process takes its own.

    Raises:
        InputError: there are fewer GPUs than processes on this machine, or no launcher has started them.
    """
    if count() == 1:
        yield
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise InputError(
            f"WORLD_SIZE={count()} is set without {missing[0]}; start with torchrun or accelerate launch, or unset it"
        )
    import torch
    import torch.distributed as dist

    on_gpus = device != "cpu" and torch.cuda.is_available()
    if on_gpus:
        _take_gpu(_number("LOCAL_RANK", 0))
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=_LONGEST_WAIT)
    yield
    # Behind an error nobody is waited for: the others notice that this process has gone.
    wait()
    dist.destroy_process_group()


def _take_gpu(number: int) -> None:
    import torch

    if number >= torch.cuda.device_count():
        raise InputError(
            f"process {number + 1} of this machine has no GPU of its own, there are {torch.cuda.device_count()}; "
            "start fewer processes, or give device=cpu"
        )
    torch.cuda.set_device(number)


def wait() -> None:
    """Return when all processes are here."""
    totals([0.0])


def agreed(value: T) -> T:
    """Return what the first process gives, in all of them: something that JSON can say."""
    if count() == 1:
        return value
    import numpy as np

    text = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
    length = int(total(np.array([len(text) if first() else 0]))[0])
    found = total(text.astype(np.int64) if first() else np.zeros(length, dtype=np.int64))
    said: T = json.loads(found.astype(np.uint8).tobytes())
    return said


def totals(values: Sequence[float]) -> list[float]:
    """Return the sum of each of some numbers over all processes, in float64."""
    if count() == 1:
        return list(values)
    import numpy as np

    return [float(value) for value in total(np.array(values, dtype=np.float64))]


def total(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of an array over all processes, which all give one of the same shape and type."""
    if count() == 1:
        return values
    import torch

    found = torch.from_numpy(values.copy())
    _add_up(found)
    return found.numpy()


def summed(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the sum of each of some tensors over all processes; None where no process has one.

    Args:
        tensors: in every process as many; None counts as zeros.
        like: tensors of the same shapes and types.
    """
    if count() == 1:
        return list(tensors)
    import torch

    held = totals([tensor is not None for tensor in tensors])
    found = [
        None if not anywhere else torch.zeros_like(model) if own is None else own
        for own, model, anywhere in zip(tensors, like, held, strict=True)
    ]
    for bucket in _buckets([tensor for tensor in found if tensor is not None]):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        _add_up(flat)
        for tensor, part in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))
    return found


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield runs of tensors of one type, of bounded size."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(each.numel() for each in bucket) + tensor.numel() > _BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def copy_first(tensors: Sequence[Tensor]) -> None:
    """Write the first process's numbers into the tensors of all."""
    if count() == 1:
        return
    import torch.distributed as dist

    with _noticing():
        for tensor in tensors:
            dist.broadcast(tensor.detach(), 0)


def _add_up(tensor: Tensor) -> None:
    import torch
    import torch.distributed as dist

    place = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    moved = tensor.to(place)
    with _noticing():
        dist.all_reduce(moved)
    if moved is not tensor:
        tensor.copy_(moved)


@contextmanager
def _noticing() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        # What the backends say of a closed connection depends on where in a transfer the other side went.
        raise LostProcessError from None
