"""Several processes of one run, as a launcher would start them, forked from this one where all is imported already."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from commands.running import Answer, peso

_OWN_WORDS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


@dataclass(frozen=True)
class Team:
    """Forked processes that all run one command.

    Attributes:
        pids: their process ids, by rank.
        folder: where they leave what they answered.
    """

    pids: tuple[int, ...]
    folder: Path

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one of them."""
        os.kill(self.pids[rank], number)

    def answers(self, seconds: float = 600) -> list[Answer | None]:
        """Wait for all; return what each answered, None for one that was killed."""
        until, left = time.monotonic() + seconds, set(self.pids)
        while left and time.monotonic() < until:
            left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert not left, "the processes wait for each other"
        return [self._answer(rank) for rank in range(len(self.pids))]

    def _answer(self, rank: int) -> Answer | None:
        path = self.folder / str(rank)
        return Answer(**json.loads(path.read_text())) if path.exists() else None


def start_together(count: int, folder: Path, *arguments: object) -> Team:
    """Start `peso ARGUMENTS` as `count` processes of one run."""
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return Team(tuple(_fork(rank, count, port, folder, lambda: peso(*arguments)) for rank in range(count)), folder)


def together(count: int, folder: Path, *arguments: object) -> list[Answer]:
    """Run `peso ARGUMENTS` as `count` processes of one run; return what each of them answered."""
    answers = start_together(count, folder, *arguments).answers()
    assert None not in answers, "a process has died"
    return answers  # type: ignore[return-value]


def _fork(rank: int, count: int, port: int, folder: Path, command: Callable[[], Answer]) -> int:
    import torch

    torch.set_num_threads(1)
    pid = os.fork()
    if pid:
        return pid
    # Takes the pool of threads, of which a fork leaves a ruin, anew before several threads of the child do so at once.
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    try:
        answer = command()
        part = folder / f".{rank}"
        part.write_text(json.dumps(vars(answer)))
        part.rename(folder / str(rank))
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(0)
