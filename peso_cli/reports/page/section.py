"""What a section is, and what it is made of."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from peso_cli.data.blocks import Dataset
from peso_cli.errors import InputError
from peso_cli.reports.collected import Record
from peso_cli.reports.opened import open_data, same_data
from peso_cli.reports.page.html import Html
from peso_cli.reports.selection import Group


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        lead: what it says, in a sentence or two; or, where it has nothing to show, what it needs.
        parts: tables, charts and what else it shows.
        commands: what makes it again; or, where it has nothing to show, what fills it.
    """

    lead: str
    parts: tuple[Html, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Carried:
    """An item of a user's history, and how far a recommendation's score falls without it."""

    item: str
    contribution: float


Explain = Callable[[Record, Mapping[str, str]], Mapping[str, Sequence[Carried]]]
"""Tells for users of a record, each with a recommended item, what carried it most; raises InputError or RunError."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What the sections of a group are made from.

    Attributes:
        group: the runs.
        anchor: what the ids of its parts begin with.
        request: filters and options that chose the runs, as words of a command.
        explain: asks models, which sections don't; None where it isn't asked for.
    """

    group: Group
    anchor: str
    request: tuple[str, ...]
    explain: Explain | None = None

    def again(self, *words: str) -> str:
        """Return the command that makes a table or a plot of the same runs."""
        return shlex.join(["peso", *words, *self.request])

    @property
    def newest(self) -> Record:
        """A record of the last stage."""
        last = self.group.stages[-1]
        return next(r for v in self.group.variants for (_, stage), r in v.records.items() if stage == last)

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset on which the runs were trained.

        Raises:
            InputError: it can't be opened from the settings that were recorded, or isn't what it was.
        """
        dataset, record = open_data(self.newest), self.newest
        if not same_data(dataset, record):
            raise InputError(f"the data of {dataset.name} are no longer those on which {record.folder} was trained")
        return dataset
