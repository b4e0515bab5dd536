"""What tables and plots share: a module for each name, and the groups of finished runs that each is made of."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from peso_cli.errors import InputError, nearest
from peso_cli.reports.choice import only_chosen
from peso_cli.reports.collected import collect
from peso_cli.reports.selection import Group, select

T = TypeVar("T")


@dataclass(frozen=True)
class Room:
    """A package with a module for each thing that can be made of a group.

    Attributes:
        package: where the modules are.
        command: the command that makes them.
        thing: what one of them is called.
    """

    package: ModuleType
    command: str
    thing: str

    @property
    def names(self) -> tuple[str, ...]:
        """What there is: a module each."""
        return tuple(sorted(module.name for module in pkgutil.iter_modules(self.package.__path__)))

    def module(self, name: str) -> ModuleType:
        """Return the module of a name.

        Raises:
            InputError: there is none.
        """
        if name not in self.names:
            hint, listed = nearest(name, self.names), ", ".join(self.names)
            raise InputError(f"{self.command} {name}: no such {self.thing}{hint}; there are {listed}")
        return import_module(f"{self.package.__name__}.{name}")

    def something(self, name: str, made: list[T]) -> list[T]:
        """Return what was made.

        Raises:
            InputError: it is nothing; says what is needed.
        """
        if not made:
            raise InputError(f"{self.command} {name}: needs {self.module(name).NEEDS}; see what there is: peso runs")
        return made


def finished(
    output: Path,
    words: list[str],
    baseline: str,
    mix: bool,
    warn: Callable[[str], None],
    chosen: bool = False,
    config_dir: Path | None = None,
) -> list[Group]:
    """Return the groups of what is finished under a folder and passes filters.

    Args:
        output: the folder that holds the runs.
        words: the filters.
        baseline: the row that others are compared with.
        mix: whether runs that can't be compared may stand together.
        warn: called with a line for each artifact that is left out.
        chosen: whether, of variants that differ only in their strength, only the one chosen on validation stays.
        config_dir: the user's own config folder that choices may come from.

    Raises:
        InputError: the folder isn't there, a filter is wrong, nothing fits, runs can't be compared, or what a choice
            rests on is missing.
    """
    groups = select(collect(output, warn, config_dir), words, baseline, mix)
    return [only_chosen(group) for group in groups] if chosen else groups
