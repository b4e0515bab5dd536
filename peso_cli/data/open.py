"""Opening the dataset that a configuration names."""

from __future__ import annotations

from pathlib import Path

from peso_cli.config.schema import ReleasedDataset
from peso_cli.data.blocks import Dataset, hiding_unseen, read_released
from peso_cli.data.raw import BuiltDataset, RawDataset
from peso_cli.data.sampling import sampled
from peso_cli.data.synthetic import SyntheticDataset, generate
from peso_cli.errors import InputError


def open_dataset(config: ReleasedDataset | SyntheticDataset | BuiltDataset | RawDataset) -> Dataset:
    """Open a dataset; blocks are read when first asked for.

    Raises:
        InputError: the data isn't there or is broken.
    """
    if isinstance(config, SyntheticDataset):
        return generate(config)
    if isinstance(config, RawDataset):
        raise InputError(
            f"dataset.source={config.source} holds raw interactions; make stages of them with peso data build and give "
            f"dataset=built dataset.name={config.name}"
        )
    dataset = _read_released(config) if isinstance(config, ReleasedDataset) else _read_built(config)
    return dataset if config.sample_users is None else sampled(dataset, config.sample_users, config.sample_seed)


def _read_released(config: ReleasedDataset) -> Dataset:
    dataset = read_released(Path(config.path), config.name)
    return hiding_unseen(dataset) if config.catalog == "visible" else dataset


def _read_built(config: BuiltDataset) -> Dataset:
    from peso_cli.data.built import read_built

    return read_built(config)
