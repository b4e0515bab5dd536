"""Reading a built dataset: items and semantic IDs when it is opened, a stage's events when they are first asked for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso_cli.data.blocks import Block, Dataset
from peso_cli.data.layout import MANIFEST, SEMANTIC_IDS, StageFolder, stage_folders
from peso_cli.data.parquet import read_document, read_table, verify
from peso_cli.data.raw import BuiltDataset
from peso_cli.errors import InputError, nearest
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.semantic_ids.store import TOKENIZER, Stored, read_stored


@dataclass(frozen=True, eq=False)
class _Events:
    """One stage's events. The user in row u owns `items[starts[u]:starts[u + 1]]`.

    Attributes:
        users: user ids.
        starts: (users + 1,) where each user's events begin.
        items: (events,) catalog indices, in the order of the file.
    """

    users: pl.Series
    starts: NDArray[np.int64]
    items: NDArray[np.int32]


def read_built(config: BuiltDataset) -> Dataset:
    """Open a folder that `peso data build` has filled and `peso tokenize` has given semantic IDs.

    Items stand in the order of their stages, so that a stage that is appended leaves every index as it is. A block
    holds the users of its stage, in the order of the stage's file.

    Raises:
        InputError: the folder is none of this kind, or isn't finished; there are no semantic IDs, too many to choose
            from, or not yet those of an appended stage; a file isn't as it should be.
        RunError: a file has changed since its stage was built.
    """
    root = Path(config.path)
    built = _read_manifest(root)
    stages = _finished_stages(root, built)
    ids = _read_ids(config, len(stages))
    tables = [_read_items(stage) for stage in stages]
    catalog = _read_catalog(config, ids, pl.concat(tables))
    counts = np.array([table.height for table in tables])
    first_stage = np.repeat(np.arange(1, len(stages) + 1), counts)

    @cache
    def events(stage: int) -> _Events:
        return _read_events(stages[stage - 1], pl.Series("item", catalog.items[: counts[:stage].sum()]))

    def visible(stage: int) -> NDArray[np.bool_]:
        return first_stage <= (max(stage, built) if config.catalog == "all" else stage)

    return Dataset(
        name=config.name,
        catalog=catalog,
        stages=len(stages),
        read=lambda stage: _block(stage, [events(s) for s in range(1, stage + 1)]),
        has=lambda stage: 1 <= stage <= len(stages),
        visible=visible,
        about={"recommended": config.catalog, "fit_on": str(ids.settings["fit_on"])},
    )


def _read_manifest(root: Path) -> int:
    """Return how many stages the dataset was built with."""
    if not root.is_dir():
        raise InputError(f"dataset.path={root}: no such folder; peso data build makes it from raw interactions")
    if not (root / MANIFEST).is_file():
        raise InputError(f"dataset.path={root}: holds no finished build ({MANIFEST} is missing); run peso data build")
    stages = read_document(root / MANIFEST).get("stages")
    if not isinstance(stages, int) or stages < 1:
        raise InputError(f"{root / MANIFEST}: 'stages' is {stages!r}, which is no number of stages; build it again")
    return stages


def _finished_stages(root: Path, built: int) -> list[StageFolder]:
    stages = stage_folders(root)
    if len(stages) < built:
        missing = StageFolder(root, len(stages) + 1)
        raise InputError(f"{missing.manifest}: missing, though {MANIFEST} promises {built} stages; build it again")
    return stages


def _read_ids(config: BuiltDataset, stages: int) -> Stored:
    """Read the semantic IDs that are meant, which must cover all stages."""
    ids = read_stored(_chosen_ids(config))
    if ids.stages < stages:
        command = _command(config, f"tokenizer.name={ids.folder.name}")
        raise InputError(f"stage {ids.stages + 1} isn't tokenized yet in {ids.folder}; run {command}")
    return ids


def _chosen_ids(config: BuiltDataset) -> Path:
    """Return the folder of the semantic IDs that are meant."""
    folder = Path(config.path) / SEMANTIC_IDS
    names = sorted(path.parent.name for path in folder.glob(f"*/{TOKENIZER}") if path.parent.name[:1] != ".")
    if not names:
        raise InputError(f"{config.path}: {config.name} has no semantic IDs yet; run {_command(config)}")
    wanted = config.semantic_ids
    if wanted is None and len(names) > 1:
        raise InputError(f"dataset.semantic_ids=null: {folder} holds several; give one of {', '.join(names)}")
    if wanted is not None and wanted not in names:
        known = f"there are {', '.join(names)}{nearest(wanted, names)}"
        raise InputError(f"dataset.semantic_ids={wanted}: not in {folder}; {known}")
    return folder / (wanted or names[0])


def _command(config: BuiltDataset, *more: str) -> str:
    chosen = ("dataset=built", f"dataset.name={config.name}", f"dataset.path={config.path}")
    return shlex.join(["peso", "tokenize", *chosen, *more])


def _read_items(stage: StageFolder) -> pl.DataFrame:
    """Return the items that a stage is the first to have: item, title."""
    verify(stage, stage.items)
    return read_table(stage.items, {"item": pl.String, "title": pl.String}, filled=("item",))


def _read_catalog(config: BuiltDataset, ids: Stored, items: pl.DataFrame) -> Catalog:
    if len(twice := items["item"].filter(items["item"].is_duplicated())):
        raise InputError(f"{config.path}: item {twice[0]!r} is listed twice among the stages' items; build it again")
    _check_codes(ids, items["item"])
    titles = {item: " ".join(title.split()) for item, title in items.drop_nulls("title").iter_rows()}
    kept = {item: title for item, title in titles.items() if title}
    return Catalog(tuple(items["item"]), ids.codes, kept, ids.level_sizes)


def _check_codes(ids: Stored, items: pl.Series) -> None:
    stored, mend = pl.Series(ids.items, dtype=pl.String), "move the folder away and run peso tokenize again"
    if not stored.equals(items):
        lacking = items.filter(~items.is_in(stored.implode()))
        defect = (
            f"item {lacking[0]!r} has no codes" if len(lacking) else "has other items than the stages, or in disorder"
        )
        raise InputError(f"{ids.folder}: {defect}; {mend}")
    if len(wrong := np.argwhere((ids.codes < 0) | (ids.codes >= np.array(ids.level_sizes)))):
        row, level = wrong[0].tolist()
        bounds = f"a level of codes 0 to {ids.level_sizes[level] - 1}"
        code = f"code {ids.codes[row, level]} at level {level + 1}"
        raise InputError(f"{ids.folder}: item {items[row]!r} has {code}, {bounds}; {mend}")


def _read_events(stage: StageFolder, items: pl.Series) -> _Events:
    """Read a stage's events; `items` are those known by then, in catalog order."""
    path = stage.interactions
    verify(stage, path)
    # One column of strings at a time: together they take several times the memory of the indices.
    indices = _item_indices(path, items)
    runs = read_table(path, {"user": pl.String}, filled=("user",))["user"].rle().struct
    users, starts = runs.field("value"), np.append(0, np.cumsum(runs.field("len").to_numpy().astype(np.int64)))
    if not len(indices):
        raise InputError(f"{path}: the stage holds no event")
    if len(twice := users.filter(users.is_duplicated())):
        raise InputError(f"{path}: the rows of user {twice[0]!r} don't stand together; build the dataset again")
    return _Events(users, starts, indices)


def _item_indices(path: Path, items: pl.Series) -> NDArray[np.int32]:
    """Return (events,) the catalog indices of a file's items."""
    table = read_table(path, {"item": pl.String}, filled=("item",))
    positions = pl.DataFrame({"item": items, "index": np.arange(len(items), dtype=np.int32)})
    joined = table.join(positions, on="item", how="left", maintain_order="left")
    if joined["index"].null_count():
        item = joined["item"].filter(joined["index"].is_null())[0]
        raise InputError(f"{path}: item {item!r} isn't among the items of this stage and those before; build it again")
    return joined["index"].to_numpy()


def _block(stage: int, parts: list[_Events]) -> Block:
    """Put together the block of a stage from the events of stages 1 to this one."""
    users = parts[-1].users
    rows = np.stack([_rows(users, part.users) for part in parts])
    lengths = np.stack([np.where(r >= 0, np.diff(p.starts)[r], 0) for p, r in zip(parts, rows, strict=True)])
    starts = np.append(0, np.cumsum(lengths.sum(axis=0)))
    begins = starts[:-1] + np.cumsum(lengths, axis=0) - lengths
    events = np.empty(starts[-1], dtype=np.int32)
    for part, row, length, begin in zip(parts, rows, lengths, begins, strict=True):
        events[_ranges(begin, length)] = part.items[_ranges(part.starts[row], length)]
    return Block(stage, tuple(users), events, starts, begins[-1])


def _rows(users: pl.Series, known: pl.Series) -> NDArray[np.int64]:
    """Return (users,) the row of each user among the known ones, -1 where there is none."""
    table = pl.DataFrame({"user": known, "row": np.arange(len(known))})
    joined = pl.DataFrame({"user": users}).join(table, on="user", how="left", maintain_order="left")
    return joined["row"].fill_null(-1).to_numpy()


def _ranges(begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of all ranges `begin, begin + 1, …` of the given lengths, one range after the other."""
    return np.repeat(begins - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
