"""Opening the dataset that a configuration names."""

from __future__ import annotations

from pathlib import Path

from peso_cli.config.schema import ReleasedDataset
from peso_cli.data.blocks import Dataset, read_released
from peso_cli.data.sampling import sampled
from peso_cli.data.synthetic import SyntheticDataset, generate


def open_dataset(config: ReleasedDataset | SyntheticDataset) -> Dataset:
    """Open a dataset; blocks are read when first asked for.

    Raises:
        InputError: the data isn't there or is broken.
    """
    if isinstance(config, SyntheticDataset):
        return generate(config)
    dataset = read_released(Path(config.path), config.name)
    return dataset if config.sample_users is None else sampled(dataset, config.sample_users, config.sample_seed)
