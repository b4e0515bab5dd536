"""Semantic IDs of a built dataset: made once, reused where the settings are the same, extended by appended stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from peso_cli.config.parts import PARTS, make_part
from peso_cli.data.layout import SEMANTIC_IDS, StageFolder, stage_folders
from peso_cli.errors import InputError
from peso_cli.files import sha256
from peso_cli.semantic_ids.item_sources import items_of_built
from peso_cli.semantic_ids.parts import Embedding, Items, Quantizer
from peso_cli.semantic_ids.settings import Tokenizer
from peso_cli.semantic_ids.store import TOKENIZER, Stored, read_stored, write_appended, write_new
from peso_cli.semantic_ids.tokenize import Tokenized, extend, tokenize

if TYPE_CHECKING:
    from peso_cli.stages import Display

_NEVER = ("batch_tokens", "device")
"""Settings of parts that change speed and memory, not results."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of semantic IDs.

    Attributes:
        folder: where they lie.
        did: whether they were made, were there already, or got stages that were appended.
        figures: counts and quality, as stored.
    """

    folder: Path
    did: Literal["made", "reused", "extended"]
    figures: dict[str, Any]


def settings_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what shapes semantic IDs out of a composed configuration: tokenizer, embedding and quantizer."""
    tokenizer = {key: value for key, value in plain["tokenizer"].items() if key != "name"}
    return {**tokenizer, "embedding": dict(plain["embedding"]), "quantizer": dict(plain["quantizer"])}


def bring_into_being(
    root: Path,
    settings: Mapping[str, Any],
    embedding: Embedding,
    quantizer: Quantizer,
    tokenizer: Tokenizer,
    display: Display,
) -> Outcome:
    """Make the semantic IDs of a built dataset, or reuse or extend those that were made with the same settings.

    Args:
        root: the dataset's folder.
        settings: what `settings_of` gives, to be stored.
        embedding: as the settings describe it.
        quantizer: likewise.
        tokenizer: likewise.
        display: where progress is shown.

    Raises:
        InputError: there is no finished build, it doesn't fit the settings, or the name is taken by other ones.
        RunError: a file is damaged.
    """
    folder = root / SEMANTIC_IDS / tokenizer.name
    if (folder / TOKENIZER).is_file():
        stored = read_stored(folder)
        _refuse_other_settings(stored, settings)
        return _extended(root, stored, embedding, quantizer, display)
    if folder.exists():
        raise InputError(f"{folder}: is there already, but holds no finished semantic IDs; move it away")
    items = items_of_built(root, tokenizer.text, display)
    made = tokenize(items, embedding, quantizer, tokenizer, display)
    return Outcome(folder, "made", _write(root, folder, settings, items, made))


def extend_stored(root: Path, folder: Path, display: Display) -> Outcome:
    """Give the items of appended stages semantic IDs, with the settings that the stored ones were made with.

    Args:
        root: the dataset's folder.
        folder: the semantic IDs' own.
        display: where progress is shown.

    Raises:
        InputError: the dataset was built anew, or the new items don't fit into the semantic IDs.
        RunError: a file is damaged.
    """
    stored = read_stored(folder)
    groups = ("embedding", "quantizer")
    embedding, quantizer = (make_part(group, stored.settings[group], PARTS[group]) for group in groups)
    return _extended(root, stored, embedding, quantizer, display)


def figures_of(items: Items, made: Tokenized) -> dict[str, Any]:
    """Return counts and quality as a document."""
    return {
        "items": len(items.ids),
        "items_without_text": items.texts.count(""),
        "quality": dataclasses.asdict(made.report),
    }


def _write(root: Path, folder: Path, settings: Mapping[str, Any], items: Items, made: Tokenized) -> dict[str, Any]:
    """Store new semantic IDs; return counts and quality."""
    figures, stages = figures_of(items, made), range(1, len(stage_folders(root)) + 1)
    document = {
        "settings": settings,
        "levels": len(made.level_sizes),
        "level_sizes": list(made.level_sizes),
        "dataset": {f"stage_{stage}": _digest(root, stage) for stage in stages},
        **figures,
    }
    write_new(folder, [_rows(items, made, stage) for stage in stages], made.codebooks.tensors(), document)
    return figures


def _extended(root: Path, stored: Stored, embedding: Embedding, quantizer: Quantizer, display: Display) -> Outcome:
    _refuse_other_build(root, stored)
    items = items_of_built(root, stored.settings["text"], display)
    last = len(stage_folders(root))
    if last == stored.stages:
        return Outcome(stored.folder, "reused", stored.figures)
    made = extend(stored, items, embedding, quantizer, display)
    figures = figures_of(items, made)
    for stage in range(stored.stages + 1, last + 1):
        head = {"dataset": {f"stage_{stage}": _digest(root, stage)}}
        write_appended(stored.folder, stage, *_rows(items, made, stage), {**head, **figures})
    return Outcome(stored.folder, "extended", figures)


def _rows(items: Items, made: Tokenized, stage: int) -> tuple[list[str], Any]:
    """Return ids and codes of the items that a stage is the first to have."""
    rows = np.flatnonzero(items.stage == stage)
    return [items.ids[row] for row in rows], made.codes[rows]


def _digest(root: Path, stage: int) -> str:
    """Return what identifies a stage's data: its manifest holds the checksums of its files."""
    return sha256(StageFolder(root, stage).manifest)


def _refuse_other_settings(stored: Stored, settings: Mapping[str, Any]) -> None:
    before, now = _flat(stored.settings), _flat(settings)
    other = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if other:
        change = f"{other[0]}={before.get(other[0])}, not {now.get(other[0])}"
        raise InputError(f"{stored.folder}: was made with {change}; choose another tokenizer.name=NAME")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    parts = {group: settings[group] for group in ("embedding", "quantizer")}
    inside = {f"{group}.{key}": value for group, part in parts.items() for key, value in part.items()}
    shaping = {key: value for key, value in inside.items() if key.partition(".")[2] not in _NEVER}
    return {**{f"tokenizer.{key}": value for key, value in settings.items() if key not in parts}, **shaping}


def _refuse_other_build(root: Path, stored: Stored) -> None:
    for name, promised in stored.dataset.items():
        path = StageFolder(root, int(name.rpartition("_")[2])).manifest
        if not path.is_file() or sha256(path) != promised:
            raise InputError(
                f"{stored.folder}: was made for another build of {root}; choose another tokenizer.name=NAME"
            )
