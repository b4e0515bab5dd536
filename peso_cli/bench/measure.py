"""Measuring side by side: interleaved times, floating-point work, peak memory."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from peso_cli.backbones.products import OPERATIONS, product
from peso_cli.decoding.states import free_memory

Work = Callable[[], object]

_LARGEST_SHARE = 0.7
"""Share of the free memory that a trial may need."""

_QUICK = 5.0
"""Seconds under which a trial is taken twice."""


@dataclass(frozen=True)
class Times:
    """Seconds of the same work, several times over."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The distance from the fastest to the slowest, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def side_by_side(ways: Mapping[str, Work], repeats: int, tick: Callable[[int, int, str], None]) -> dict[str, Times]:
    """Time several ways in turns, so that what the machine does beside hits all of them alike.

    Args:
        ways: what to time, by name; each must do the same work.
        repeats: how often each is timed, after one run that isn't.
        tick: called with (runs done, runs planned, name).
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways.items())
    for turn in range(repeats + 1):
        for place, (name, work) in enumerate(order):
            begun = time.perf_counter()
            work()
            wait()
            if turn:
                found[name].append(time.perf_counter() - begun)
            tick(turn * len(ways) + place + 1, (repeats + 1) * len(ways), name)
        # None is always behind the same other one.
        order.append(order.pop(0))
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}


def best_of(sizes: Sequence[int], make: Callable[[int], Work]) -> int:
    """Return the size (of a batch, say) with which some work is fastest, trying larger ones while they help and fit."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    best, fastest, in_vain = sizes[0], float("inf"), 0
    for size, larger in zip(sizes, [*sizes[1:], sizes[-1]], strict=True):
        work = make(size)
        begun = time.perf_counter()
        peak = peak_memory(work) or 0
        seconds = time.perf_counter() - begun
        if seconds < _QUICK:
            seconds = min(seconds, seconds_of(work))
        best, in_vain = (best, in_vain + 1) if seconds >= fastest else (size, 0)
        fastest = min(fastest, seconds)
        if in_vain == 2 or seconds > 1.5 * fastest or peak * larger / size > _LARGEST_SHARE * free_memory(device):
            break
    return best


def seconds_of(work: Work) -> float:
    """Run something once and return how long it took."""
    begun = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begun


def wait() -> None:
    """Wait for a GPU to finish what was given to it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def flops(work: Work) -> int:
    """Return the floating-point operations of the matrix products of some work."""
    with FlopCounterMode(display=False, custom_mapping=OPERATIONS) as counter:
        work()
    return int(counter.get_total_flops())


def figures(times: Times, work: Work, unit: str, count: int) -> dict[str, Any]:
    """Return what a document says of one way.

    Args:
        times: how long the work took.
        work: the work, which is run once more to count its operations.
        unit: what there are `count` of: user, example.
        count: how many of them the work is for.
    """
    operations = flops(work)
    return {
        "seconds": list(times.seconds),
        f"milliseconds_per_{unit}": 1e3 * times.median / count,
        "spread": times.spread,
        f"gflop_per_{unit}": operations / count / 1e9,
        "gflop_per_second": operations / times.median / 1e9,
    }


def peak_memory(work: Work) -> int | None:
    """Return how many bytes more than before some work needs at its peak; None where the system doesn't tell."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    if not sys.platform.startswith("linux"):
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # puts the high-water mark back to what is held now
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def matrix_rate(repeats: int = 5) -> float:
    """Return the floating-point operations a second of a large product of matrices, the best of some runs."""
    size = 8192 if torch.cuda.is_available() else 2048
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)

    @torch.inference_mode()
    def work() -> object:
        return product(a, b)

    seconds_of(work)
    return 2 * size**3 / min(seconds_of(work) for _ in range(repeats))
