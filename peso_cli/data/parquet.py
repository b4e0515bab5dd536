"""Reading the files of a built dataset, which have checksums: every defect is one line with the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from peso_cli.data.layout import FORMAT, StageFolder
from peso_cli.data.reading import read_object
from peso_cli.errors import InputError, RunError
from peso_cli.files import sha256


def read_document(path: Path) -> dict[str, Any]:
    """Read one of the dataset's JSON documents.

    Raises:
        InputError: it is missing, broken, or of another format.
    """
    document = read_object(path)
    if document.get("format") != FORMAT:
        found = document.get("format")
        raise InputError(f"{path}: has format {found!r}, this version of peso reads {FORMAT}; build the dataset again")
    return document


def verify(stage: StageFolder, path: Path) -> None:
    """Check a stage's file against the checksum in its manifest.

    Raises:
        InputError: the manifest or the file is missing or broken.
        RunError: the file has changed.
    """
    promised = read_document(stage.manifest).get("files")
    if not isinstance(promised, dict) or path.name not in promised:
        raise InputError(f"{stage.manifest}: 'files' has no SHA-256 of {path.name}; build the dataset again")
    if not path.is_file():
        raise InputError(f"{path}: no such file; build the dataset again")
    if sha256(path) != promised[path.name]:
        raise RunError(f"{path}: changed since stage {stage.stage} was built; build the dataset again")


def read_table(path: Path, columns: Mapping[str, Any], filled: tuple[str, ...]) -> pl.DataFrame:
    """Read columns of a Parquet file.

    Args:
        path: the file.
        columns: their types by name.
        filled: those that are to have no nulls.

    Raises:
        InputError: the file is missing or no Parquet, or a column isn't as it should be.
    """
    try:
        lazy = pl.scan_parquet(path, glob=False)
        schema = lazy.collect_schema()
        for name, kind in columns.items():
            if schema.get(name) != kind:
                found = schema.get(name, "missing")
                raise InputError(f"{path}: column {name!r} is {found}; it should hold {kind}")
        table = lazy.select(*columns).collect()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: can't be read as Parquet ({' '.join(str(error).split())[:80]})") from None
    for name in filled:
        if table[name].null_count():
            raise InputError(f"{path}: row {table[name].is_null().arg_true()[0] + 1} has no {name!r}")
    return table
