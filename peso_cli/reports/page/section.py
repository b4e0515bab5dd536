"""What a section is, and what it is made of."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from peso_cli.artifacts import Artifact
from peso_cli.config.schema import ReleasedDataset
from peso_cli.data.blocks import Dataset
from peso_cli.data.raw import BuiltDataset, RawDataset
from peso_cli.data.synthetic import SyntheticDataset
from peso_cli.errors import InputError
from peso_cli.reports.collected import Record
from peso_cli.reports.page.html import Html
from peso_cli.reports.selection import Group

_Settings = ReleasedDataset | SyntheticDataset | BuiltDataset | RawDataset


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


@dataclass(frozen=True, eq=False)
class Subject:
    """What the sections of a group are made from.

    Attributes:
        group: the runs.
        anchor: what the ids of its parts begin with.
        request: filters and options that chose the runs, as words of a command.
    """

    group: Group
    anchor: str
    request: tuple[str, ...]

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
        from peso_cli.data.open import open_dataset

        dataset = open_dataset(_settings(self.newest))
        _check(dataset, self.newest)
        return dataset


def _settings(record: Record) -> _Settings:
    plain = yaml.safe_load((record.folder / "config.yaml").read_text(encoding="utf-8"))["dataset"]
    adapter: TypeAdapter[_Settings] = TypeAdapter(Annotated[_Settings, Field(discriminator="source")])
    try:
        return adapter.validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{record.folder / 'config.yaml'}: dataset.{place}: {first['msg']}") from None


def _check(dataset: Dataset, record: Record) -> None:
    """Check that a dataset is the one that a stage was trained on.

    Raises:
        InputError: it isn't.
    """
    stage = record.place.stage
    blocks = Artifact(record.folder).lineage()["data"].get("blocks", {})
    known = blocks.get(str(stage), ""), record.catalog
    if (dataset.block(stage).digest, dataset.catalog_at(stage).digest) != known:
        raise InputError(f"the data of {dataset.name} are no longer those on which {record.folder} was trained")
