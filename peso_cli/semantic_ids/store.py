"""The folder PATH/semantic_ids/NAME/ of a built dataset: one choice of semantic IDs, frozen.

`codebooks.safetensors`, `stage_<t>.parquet` (item, codes; in the order of that stage's items.parquet), and, written
last, `tokenizer.json` with settings, figures and the SHA-256 of them all. The folder comes into being by one rename. A
stage that is appended adds `stage_<t>.parquet` and then `stage_<t>.json` with its SHA-256; nothing else changes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso_cli.data.layout import FORMAT
from peso_cli.data.parquet import read_table
from peso_cli.errors import InputError, RunError
from peso_cli.files import fsync_folder, read_json, sha256, write_atomically, write_json
from peso_cli.semantic_ids.parts import Codes

TOKENIZER = "tokenizer.json"
CODEBOOKS = "codebooks.safetensors"

FIGURES = ("items", "items_without_text", "quality")
"""Keys of counts and quality."""

_ALWAYS = (*FIGURES, "dataset", "files")

_MEND = "move the folder away and run peso tokenize again"

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Stored:
    """Semantic IDs as they lie in their folder, verified.

    Attributes:
        folder: the folder.
        document: what tokenizer.json says.
        appended: what the files of the stages that were appended say.
        items: item ids of all stages, stage 1 first.
        codes: (items, levels) their codes.
    """

    folder: Path
    document: dict[str, Any]
    appended: tuple[dict[str, Any], ...]
    items: tuple[str, ...]
    codes: Codes

    @property
    def stages(self) -> int:
        """How many stages have codes, those that were appended included."""
        return int(self.document["stages"]) + len(self.appended)

    @property
    def dataset(self) -> dict[str, str]:
        """Digest of the data of each stage."""
        return {name: digest for part in (self.document, *self.appended) for name, digest in part["dataset"].items()}

    @property
    def figures(self) -> dict[str, Any]:
        """Counts and quality, over all stages."""
        newest = self.appended[-1] if self.appended else self.document
        return {key: newest[key] for key in FIGURES}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that they were made with."""
        return dict(self.document["settings"])

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return tuple(self.document["level_sizes"])

    def tensors(self) -> Tensors:
        """Return the tensors of the codebooks."""
        from safetensors.numpy import load_file

        return load_file(self.folder / CODEBOOKS)


def codes_file(stage: int) -> str:
    """Return the name of the file with a stage's codes."""
    return f"stage_{stage}.parquet"


def _appended_file(stage: int) -> str:
    return f"stage_{stage}.json"


def write_new(
    folder: Path, stages: Sequence[tuple[Sequence[str], Codes]], tensors: Tensors, document: Mapping[str, Any]
) -> None:
    """Write semantic IDs into a folder that isn't there yet; it comes whole or not at all.

    Args:
        folder: the folder.
        stages: item ids and (items, levels) codes of each stage.
        tensors: of the codebooks.
        document: what tokenizer.json is to say besides: `settings`, `level_sizes`, `dataset`, the keys of FIGURES.

    Raises:
        InputError: the folder is there already.
    """
    working = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(working, ignore_errors=True)  # what a killed process of the same number left
    working.mkdir(parents=True)
    try:
        _write_codebooks(working / CODEBOOKS, tensors)
        for stage, (items, codes) in enumerate(stages, start=1):
            _write_codes(working / codes_file(stage), items, codes)
        files = {path.name: sha256(path) for path in sorted(working.iterdir())}
        head = {"format": FORMAT, "name": folder.name, "stages": len(stages)}
        write_json(working / TOKENIZER, {**head, **document, "files": files})
        try:
            working.rename(folder)
        except OSError:
            raise InputError(f"{folder}: is there already; choose another tokenizer.name=NAME") from None
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def write_appended(folder: Path, stage: int, items: Sequence[str], codes: Codes, figures: Mapping[str, Any]) -> None:
    """Add the semantic IDs of a stage that was appended, the next one after those that are stored.

    Args:
        folder: the folder.
        stage: the stage.
        items: ids of the items that it is the first to have.
        codes: (items, levels) their codes.
        figures: what its file is to say besides: `dataset` and the keys of FIGURES.
    """
    _write_codes(folder / codes_file(stage), items, codes)
    files = {codes_file(stage): sha256(folder / codes_file(stage))}
    write_json(folder / _appended_file(stage), {"format": FORMAT, "stage": stage, **figures, "files": files})


def _write_codebooks(path: Path, tensors: Tensors) -> None:
    from safetensors.numpy import save

    own = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    # The library's own writing of files leaves them readable for their owner alone.
    write_atomically(path, lambda part: part.write_bytes(save(own)))


def _write_codes(path: Path, items: Sequence[str], codes: Codes) -> None:
    rows = pl.Series("codes", codes.astype(np.int32), dtype=pl.Array(pl.Int32, codes.shape[1]))
    frame = pl.DataFrame({"item": pl.Series(items, dtype=pl.String), "codes": rows.cast(pl.List(pl.Int32))})
    write_atomically(path, lambda part: frame.write_parquet(part))


def read_stored(folder: Path) -> Stored:
    """Read semantic IDs and check every file against its checksum.

    Raises:
        InputError: there are none, or a file of them isn't as it should be.
        RunError: a file is missing or damaged.
    """
    if not (folder / TOKENIZER).is_file():
        raise InputError(f"{folder}: holds no semantic IDs; make them with peso tokenize")
    document = _document(folder / TOKENIZER, ("settings", "level_sizes", "stages"))
    base, appended = int(document["stages"]), list[dict[str, Any]]()
    while (path := folder / _appended_file(base + len(appended) + 1)).is_file():
        appended.append(_document(path, ()))
    for part in (document, *appended):
        _verify(folder, part["files"])
    stages = range(1, base + len(appended) + 1)
    parts = [_read_codes(folder / codes_file(stage), len(document["level_sizes"])) for stage in stages]
    items = tuple(item for part, _ in parts for item in part)
    return Stored(folder, document, tuple(appended), items, np.concatenate([codes for _, codes in parts]))


def _document(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: can't be read ({error}); {_MEND}") from None
    if not isinstance(document, dict) or any(key not in document for key in (*keys, *_ALWAYS)):
        raise RunError(f"{path}: isn't whole; {_MEND}")
    if document.get("format") != FORMAT:
        raise RunError(f"{path}: has format {document.get('format')}, this version reads {FORMAT}; {_MEND}")
    return document


def _verify(folder: Path, files: Mapping[str, str]) -> None:
    for name, promised in files.items():
        path = folder / name
        if not path.is_file():
            raise RunError(f"{path}: missing from finished semantic IDs; {_MEND}")
        if sha256(path) != promised:
            raise RunError(f"{path}: changed since the semantic IDs were made; {_MEND}")


def _read_codes(path: Path, levels: int) -> tuple[list[str], Codes]:
    frame = read_table(path, {"item": pl.String, "codes": pl.List(pl.Int32)}, filled=("item", "codes"))
    if (frame["codes"].list.len() != levels).any():
        raise InputError(f"{path}: an item hasn't {levels} codes; {_MEND}")
    flat = frame["codes"].explode(empty_as_null=False)
    if flat.null_count():
        raise InputError(f"{path}: a code is missing; {_MEND}")
    return frame["item"].to_list(), flat.to_numpy().reshape(-1, levels).astype(np.int32)
