"""Opening the raw interactions that a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from peso_cli.data.raw import RawDataset, SourceName
from peso_cli.data.sources.amazon_2018 import AMAZON_2018
from peso_cli.data.sources.amazon_2023 import AMAZON_2023
from peso_cli.data.sources.frames import Raw, collecting
from peso_cli.data.sources.hugging_face import read_hugging_face
from peso_cli.data.sources.layouts import read_files
from peso_cli.data.sources.movielens import MOVIELENS
from peso_cli.data.sources.recbole import RECBOLE
from peso_cli.data.sources.tables import CSV, JSONL, PARQUET, TSV
from peso_cli.data.sources.yelp import YELP
from peso_cli.stages import Display

__all__ = ["collecting", "open_raw"]

_READERS: dict[SourceName, Callable[[RawDataset, Display], Raw]] = {
    "csv": partial(read_files, CSV),
    "tsv": partial(read_files, TSV),
    "jsonl": partial(read_files, JSONL),
    "parquet": partial(read_files, PARQUET),
    "amazon_2023": partial(read_files, AMAZON_2023),
    "amazon_2018": partial(read_files, AMAZON_2018),
    "yelp": partial(read_files, YELP),
    "movielens": partial(read_files, MOVIELENS),
    "recbole": partial(read_files, RECBOLE),
    "hugging_face": read_hugging_face,
}


def open_raw(config: RawDataset, display: Display) -> Raw:
    """Open raw interactions; rows are read when the tables are collected, which belongs into `frames.collecting`.

    Raises:
        InputError: a file isn't there, or isn't of the source's layout.
        RunError: a URL or the hub can't be reached, or what was fetched has changed.
    """
    return _READERS[config.source](config, display)
