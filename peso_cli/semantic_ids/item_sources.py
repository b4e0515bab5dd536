"""The items that are to get semantic IDs: those of a built dataset, or of a file in the released layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso_cli.data.examples import MINIMUM_EVENTS
from peso_cli.data.layout import MANIFEST, StageFolder, stage_folders
from peso_cli.data.parquet import read_table, verify
from peso_cli.data.sources.frames import ITEM_SCHEMA
from peso_cli.errors import InputError
from peso_cli.semantic_ids.markup import clean, unwrapped
from peso_cli.semantic_ids.parts import Items
from peso_cli.semantic_ids.text import field_text, item_texts, read_item_file

if TYPE_CHECKING:
    from peso_cli.stages import Display

Histories = Callable[[], Sequence[NDArray[np.int32]]]

_BETWEEN_CATEGORIES = re.compile(r"\s*[|>,;]\s*")

_NEARLY_ALL = 0.9


def items_of_built(root: Path, template: str, display: Display) -> Items:
    """Return the items of all stages of a built dataset, stage 1 first, each stage in the order of its file.

    Args:
        root: the dataset's folder.
        template: of an item's text.
        display: told how many items have no text.

    Raises:
        InputError: the folder holds no finished build, or the template can't be read.
        RunError: a file has changed since its stage was built.
    """
    stages = stage_folders(root)
    if not stages or not (root / MANIFEST).is_file():
        raise InputError(f"dataset.path={root}: holds no finished build; peso data build makes it of raw interactions")
    tables = [_read_items(stage) for stage in stages]
    first_stage = np.repeat(np.arange(1, len(tables) + 1, dtype=np.int32), [table.height for table in tables])
    table = pl.concat(tables)

    def histories() -> Sequence[NDArray[np.int32]]:
        return [trained_part(user) for user in _histories(stages[0], table["item"].head(tables[0].height))]

    return _items(table, first_stage, template, display, histories)


def items_of_file(path: Path, template: str, display: Display) -> Items:
    """Return the items of a released NAME.item.json, all of them as of stage 1 and without histories.

    Raises:
        InputError: the file is missing or broken or holds no item, or the template can't be read.
    """
    table = read_item_file(path)
    if not table.height:
        raise InputError(f"{path}: holds no item")
    return _items(table, np.ones(table.height, np.int32), template, display, lambda: ())


def _items(
    table: pl.DataFrame, first_stage: NDArray[np.int32], template: str, display: Display, histories: Histories
) -> Items:
    texts = item_texts(table, template)
    display.say(texts.summary)
    return Items(
        ids=tuple(table["item"].to_list()),
        texts=texts.texts,
        brands=tuple(field_text(brand) for brand in table["brand"].to_list()),
        categories=tuple(_telling_categories(table["categories"].to_list())),
        stage=first_stage,
        histories=histories,
    )


def _telling_categories(values: Sequence[str | None]) -> list[str]:
    """Return the first category of each item that not nearly all items have; empty where there is none.

    The first one of all is often the shop's department, which is the same for a whole dataset.
    """
    lists = [_categories(value) for value in values]
    counts = Counter(category for listed in lists for category in set(listed))
    most = _NEARLY_ALL * sum(bool(listed) for listed in lists)
    return [next((category for category in listed if counts[category] < most), "") for listed in lists]


def _categories(value: str | None) -> list[str]:
    pieces = unwrapped(value or "")
    pieces = _BETWEEN_CATEGORIES.split(pieces[0]) if pieces == [value] else pieces
    return [shown for piece in pieces if (shown := clean(piece))]


def _read_items(stage: StageFolder) -> pl.DataFrame:
    verify(stage, stage.items)
    return read_table(stage.items, ITEM_SCHEMA, filled=("item",))


def trained_part(events: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return a user's events without those that validation and test ask for."""
    return events[:-2] if len(events) >= MINIMUM_EVENTS else events


def _histories(stage: StageFolder, items: pl.Series) -> list[NDArray[np.int32]]:
    """Return the indices of each user's items in time order; a user's rows stand together."""
    verify(stage, stage.interactions)
    events = read_table(stage.interactions, {"user": pl.String, "item": pl.String}, filled=("user", "item"))
    known = pl.DataFrame({"item": items, "index": np.arange(len(items), dtype=np.int32)})
    indices = events.join(known, on="item", how="left", maintain_order="left")["index"].to_numpy()
    lengths = events["user"].rle().struct.field("len").to_numpy().astype(np.int64)
    return np.split(indices, np.cumsum(lengths)[:-1])
