"""Runs of the command line in processes forked from one that has imported everything: each begins in a blink."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from commands.running import SMALL

from peso_cli.cli import main

FIVE = (*SMALL, "dataset.users=100", "dataset.stages=5", "trainer.checkpoint_steps=1")
"""Five stages that are learnt in a blink, with a checkpoint at every step."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "peso_cli.cli",
        "peso_cli.commands.train",
        "peso_cli.training.stage",
        "peso_cli.evaluation.figures",
        "peso_cli.tracking.wandb_tracker",
        "accelerate",
        "peft",
        "pyarrow.parquet",
        "transformers.models.llama.modeling_llama",
        "wandb",
    ]
)


@dataclass(frozen=True)
class Death:
    """Where the first process to come there kills itself, once: behind the checkpoint of a step of a stage."""

    stage: int
    step: int
    mark: Path

    def await_here(self) -> None:
        """Make this process one of those that may die."""
        from peso_cli.training import checkpoints

        original = checkpoints.save_checkpoint

        def save_and_die(path: Path, checkpoint: checkpoints.Checkpoint) -> None:
            original(path, checkpoint)
            if (path.parent.name, checkpoint.progress["step"]) == (f"stage_{self.stage}", self.step):
                self._die_once()

        checkpoints.save_checkpoint = save_and_die

    def _die_once(self) -> None:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Forked:
    """A run under way, or ended.

    Attributes:
        process: where it runs.
        log: what it writes to standard output and standard error.
    """

    process: ForkServerProcess
    log: Path

    def ends_within(self, seconds: float) -> bool:
        """Wait so long; tell whether it has ended."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def end(self) -> int:
        """Wait for its end; return its exit code, -9 for one that was killed."""
        assert self.ends_within(300), self.log.read_text()
        return int(self.process.exitcode or 0)

    def stages(self, what: str) -> Counter[int]:
        """Of how many times each stage it said that it was `training`, `resuming` or `reusing` it."""
        return Counter(int(stage) for stage in re.findall(rf"^stage (\d+): (?:{what}) ", self.log.read_text(), re.M))


def start(folder: Path, log: Path, *arguments: str, death: Death | None = None) -> Forked:
    """Start `peso ARGUMENTS` in a folder, in a process of its own."""
    process = _CONTEXT.Process(target=_run, args=(folder, log, arguments, death), daemon=True)
    process.start()
    return Forked(process, log)


def _run(folder: Path, log: Path, arguments: tuple[str, ...], death: Death | None) -> None:
    os.chdir(folder)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    if death:
        death.await_here()
    sys.argv = ["peso", *arguments]
    main()
