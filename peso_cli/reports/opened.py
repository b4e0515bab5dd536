"""The data that a finished stage rests on, opened again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from peso_cli.config.schema import ReleasedDataset
from peso_cli.data.blocks import Dataset
from peso_cli.data.open import open_dataset
from peso_cli.data.raw import BuiltDataset
from peso_cli.data.synthetic import SyntheticDataset
from peso_cli.errors import InputError
from peso_cli.reports.collected import Record

_Settings = Annotated[ReleasedDataset | SyntheticDataset | BuiltDataset, Field(discriminator="source")]


def open_data(record: Record) -> Dataset:
    """Open the dataset that a record's settings name; whether it is still the same is for `same_data` to say.

    Raises:
        InputError: it isn't there or is broken, or the settings can't be read.
    """
    plain = {key.removeprefix("dataset."): v for key, v in record.settings.items() if key.startswith("dataset.")}
    try:
        settings: ReleasedDataset | SyntheticDataset | BuiltDataset = TypeAdapter(_Settings).validate_python(plain)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(("dataset", *map(str, found["loc"])))
        raise InputError(f"{record.folder / 'config.yaml'}: {place}: {found['msg']}") from None
    return open_dataset(settings)


def same_data(dataset: Dataset, record: Record) -> bool:
    """Tell whether a record's stage was trained on this data: its block, and the items that were there to recommend.

    Raises:
        InputError: the stage's data is missing or broken.
    """
    stage = record.place.stage
    now = dataset.block(stage).digest, dataset.catalog_at(stage).digest
    return now == (record.blocks.get(str(stage)), record.catalog)
