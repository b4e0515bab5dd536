"""`peso bench tracking`: what tracking costs a run, whatever W&B's server is like."""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from peso_cli.bench.measure import Times, side_by_side
from peso_cli.config.compose import Composed, compose
from peso_cli.stages import Display, ensure, open_run

Document = dict[str, Any]

_NONE = "no tracking"
_KEY = "0" * 40
"""What passes for a key with a server that never looks at it."""


class _Silence:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def bar(self, title: str) -> Callable[[int, int, str], None]:
        """Return what shows nothing."""
        return lambda done, total, note: None


def bench_tracking(composed: Composed, repeats: int, display: Display) -> Document:
    """Time the same stages without tracking, recorded, and sent to servers that refuse connections or never answer.

    `more` is the median over turns of what a way took beside the run without tracking of the same turn, less 1, in
    seconds and in processor seconds of the run's own process; those that send are others, of the lowest priority.

    Args:
        composed: what is trained, up to its stage, each time in a folder of its own.
        repeats: how often each way is timed.
        display: shows progress.
    """
    with tempfile.TemporaryDirectory(prefix="peso-bench-", ignore_cleanup_errors=True) as name, _servers() as servers:
        folder = Path(name)
        online = ("tracker=wandb", "tracker.mode=online")
        settings: dict[str, tuple[tuple[str, ...], str | None]] = {
            _NONE: (("tracker=none",), None),
            "offline": (("tracker=wandb", "tracker.mode=offline"), None),
            **{f"online, {kind}": (online, url) for kind, url in servers.items()},
        }
        busy: dict[str, list[float]] = {way: [] for way in settings}
        ways = {way: partial(_train, composed, folder, *given, busy[way]) for way, given in settings.items()}
        times = side_by_side(ways, repeats, display.bar("timing"))
    # The first turn isn't timed.
    processor = {way: Times(tuple(seconds[1:])) for way, seconds in busy.items()}
    return {
        "bench": "tracking",
        "backbone": composed.config.backbone.name,
        "stage": composed.config.stage,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "ways": {
            way: _figures(times[way], times[_NONE])
            | {f"processor_{name}": value for name, value in _figures(processor[way], processor[_NONE]).items()}
            for way in times
        },
    }


def _figures(times: Times, without: Times) -> Document:
    ratios = [own / other for own, other in zip(times.seconds, without.seconds, strict=True)]
    more = statistics.median(ratios) - 1
    return {"seconds": list(times.seconds), "median": times.median, "spread": times.spread, "more": more}


def _train(composed: Composed, folder: Path, words: tuple[str, ...], url: str | None, busy: list[float]) -> None:
    """Train in a new folder, add the processor seconds that it took, and end what still sends when it is done."""
    others = [word for word in composed.overrides if not word.startswith(("tracker", "output="))]
    with _account(url):
        run = open_run(compose([*others, *words, f"output={tempfile.mkdtemp(dir=folder)}"], composed.config_dir))
        assert isinstance(run.config.stage, int)
        begun = time.process_time()
        try:
            ensure(run, (run.config.stage,), _Silence())
        finally:
            _end_senders(folder)
        busy.append(time.process_time() - begun)


@contextmanager
def _account(url: str | None) -> Iterator[None]:
    """Have W&B's processes that start while the block runs know one server, by a key that is none."""
    before = dict(os.environ)
    os.environ.update({"WANDB_BASE_URL": url, "WANDB_API_KEY": _KEY} if url else {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _servers() -> Iterator[dict[str, str]]:
    """Name two places on this machine: one refuses connections, the other accepts them and never answers."""
    with socket.socket() as refusing, socket.create_server(("127.0.0.1", 0), backlog=1000) as hanging:
        refusing.bind(("127.0.0.1", 0))  # and never listens
        found = {"refuses": refusing, "hangs": hanging}
        yield {kind: f"http://127.0.0.1:{bound.getsockname()[1]}" for kind, bound in found.items()}


def _end_senders(folder: Path) -> None:
    """End the processes that still try to send what lies in the folder."""
    for child in psutil.Process().children():
        # One that has ended by itself has nothing left to end.
        with suppress(psutil.NoSuchProcess):
            if any(str(folder) in word for word in child.cmdline()):
                for process in (*child.children(recursive=True), child):
                    process.kill()
                child.wait()
