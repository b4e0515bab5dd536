"""The peak memory of a stage's training: the process's own on a CPU, the tensors' on a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import device as Device

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")

_FORGET_PEAK = "5"
"""What Linux takes in clear_refs as the order to forget the peak (proc(5))."""


def begin_peak(device: Device) -> None:
    """Forget the peak so far, so that `peak_bytes` tells the one from here on."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif os.access(_RESET, os.W_OK):
        _RESET.write_text(_FORGET_PEAK)


def peak_bytes(device: Device) -> int | None:
    """Return the most memory in use since `begin_peak`, in bytes; None where the system can't tell.

    On a GPU it is what tensors took there, else the resident memory of the whole process, libraries and data included.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    # A peak that can't be forgotten is that of all the process did before.
    return _resident_peak() if os.access(_RESET, os.W_OK) else None


def _resident_peak() -> int | None:
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next((1024 * int(words[1]) for words in lines if words[:1] == ["VmHWM:"]), None)
