"""What a launcher is, and the one that a sweep's words choose."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from peso_cli.config.compose import compose_plain, validation_message
from peso_cli.config.parts import make_part
from peso_cli.errors import InputError


class Launcher(Protocol):
    """An engine that carries out runs, each by calling `peso_cli.sweeps.work.work` once."""

    def launch(self, folder: Path, names: Sequence[str]) -> None:
        """Carry out runs, beginning them in the order given; return when all have ended, in whatever way.

        Args:
            folder: of the sweep, absolute.
            names: of the runs.

        Raises:
            InputError: the engine isn't installed or can't be reached.
            KeyboardInterrupt: a signal asked to stop.
        """


def choose_launcher(words: Sequence[str], config_dir: Path | None = None) -> Launcher:
    """Make the launcher that `launcher=` and `launcher.*` describe.

    Raises:
        InputError: there is no such launcher, or a setting of it is wrong.
    """
    launcher: Launcher = choose_part("launcher", words, ("launch",), config_dir)
    return launcher


def choose_part(group: str, words: Sequence[str], needed: Sequence[str], config_dir: Path | None = None) -> Any:
    """Make the part that a sweep's words choose of a group.

    Args:
        group: of the primary config `sweep`.
        words: overrides.
        needed: what its class must have.
        config_dir: a folder searched before the built-in one.

    Raises:
        InputError: there is no such choice, or a setting of it is wrong.
    """
    plain = compose_plain("sweep", words, config_dir).plain
    try:
        return make_part(group, plain.get(group), needed)
    except ValidationError as error:
        found = error.errors()[0]
        raise InputError(validation_message({**found, "loc": (group, *found["loc"])}, plain)) from None


def room_for(jobs: int | None, threads: int) -> int:
    """Return how many runs at once the cores of this machine have room for, unless a number is given."""
    cores = len(os.sched_getaffinity(0))
    return jobs or max(1, cores // threads)


def missing_engine(name: str, extra: str) -> InputError:
    """Return the complaint that an engine's package isn't there."""
    return InputError(f"launcher={name}: needs the package {extra}; install it: pip install 'peso[{extra}]'")
