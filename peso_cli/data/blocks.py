"""Blocks: one stage's interactions in columnar arrays, read once from the released layout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.reading import Pairs, read_object
from peso_cli.errors import InputError
from peso_cli.semantic_ids.catalog import Catalog, read_catalog

_BLOCK_FILE = re.compile(r"(?P<name>.+)\.all\.block_(?P<number>0|[1-9][0-9]*)\.json")


@dataclass(frozen=True, eq=False)
class Block:
    """One stage's data. User u owns events `starts[u]:starts[u + 1]`; those from `current[u]` on are this stage's.

    Attributes:
        stage: 1-based stage number.
        users: user ids.
        events: (events,) catalog indices of all users' previous and current items, in time order.
        starts: (users + 1,) where each user's events begin.
        current: (users,) where each user's events of this stage begin.
    """

    stage: int
    users: tuple[str, ...]
    events: NDArray[np.int32]
    starts: NDArray[np.int64]
    current: NDArray[np.int64]

    @cached_property
    def current_lengths(self) -> NDArray[np.int64]:
        """(users,) how many events each user has in this stage."""
        return self.starts[1:] - self.current

    @cached_property
    def previous_lengths(self) -> NDArray[np.int64]:
        """(users,) how many earlier events each user has."""
        return self.current - self.starts[:-1]

    @cached_property
    def current_events(self) -> NDArray[np.int32]:
        """Catalog indices of this stage's events, user by user."""
        owner = np.repeat(np.arange(len(self.users)), np.diff(self.starts))
        return self.events[np.arange(len(self.events)) >= self.current[owner]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over users and events."""
        state = hashlib.sha256("\0".join(self.users).encode())
        for column in (self.events, self.starts, self.current):
            state.update(np.ascontiguousarray(column).tobytes())
        return state.hexdigest()


def block_from_lists(stage: int, users: dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]) -> Block:
    """Build a block from each user's (previous, current) item indices."""
    previous = np.array([len(p) for p, _ in users.values()], dtype=np.int64)
    lengths = previous + np.array([len(c) for _, c in users.values()], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    parts = [part for pair in users.values() for part in pair]
    events = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    return Block(stage, tuple(users), events.astype(np.int32), starts, starts[:-1] + previous)


@dataclass(eq=False)
class Dataset:
    """A catalog and its stages; blocks are read when first asked for.

    Attributes:
        name: the dataset's name in paths and tables.
        catalog: all items.
        stages: number of stages T.
        read: reads the block of a stage; raises InputError where the stage's data is missing.
        has: tells whether the block of a stage is there to be read.
        ceiling: for a stage, the best attainable figures of its test users, where the world is known to that degree.
        visible: for a stage, (items,) which items there are to recommend; None where that is all, always.
        about: how the semantic IDs were made and which items are recommended, for the lineage of what is trained.
    """

    name: str
    catalog: Catalog
    stages: int
    read: Callable[[int], Block]
    has: Callable[[int], bool]
    ceiling: Callable[[int], dict[str, float]] | None = None
    visible: Callable[[int], NDArray[np.bool_]] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    _catalogs: dict[int, Catalog] = field(default_factory=dict, repr=False)
    _blocks: dict[int, Block] = field(default_factory=dict, repr=False)

    def block(self, stage: int) -> Block:
        """Return the block of a stage.

        Raises:
            InputError: there is no such stage, or its file is missing or broken.
        """
        if not 1 <= stage <= self.stages:
            raise InputError(f"stage={stage}: {self.name} has stages 1 to {self.stages}")
        if stage not in self._blocks:
            self._blocks[stage] = self.read(stage)
        return self._blocks[stage]

    def catalog_at(self, stage: int) -> Catalog:
        """Return the catalog as it is recommended from at a stage.

        Raises:
            InputError: what tells which items are visible is missing.
        """
        if self.visible is None:
            return self.catalog
        if stage not in self._catalogs:
            self._catalogs[stage] = self.catalog.seen(self.visible(stage))
        return self._catalogs[stage]


def read_released(folder: Path, name: str) -> Dataset:
    """Open a folder in the released layout: `*.all.block_<b>.json`, `*.index.*.json`, optional `*.item.json`.

    Raises:
        InputError: the folder or a needed file is missing, or there are several candidates.
    """
    if not folder.is_dir():
        raise InputError(f"dataset.path={folder}: no such folder; give the one that holds *.all.block_<b>.json")
    prefix, files = _block_files(folder)
    index = _only(folder, "*.index*.json", required=True)
    assert index is not None
    catalog = read_catalog(index, _only(folder, "*.item.json", required=False))

    def read(stage: int) -> Block:
        path = files.get(stage - 1)
        if path is None:
            raise InputError(f"stage {stage} needs {folder / f'{prefix}.all.block_{stage - 1}.json'}, which is missing")
        return read_block(path, stage, catalog)

    about = {"recommended": "all", "fit_on": "unknown"}
    return Dataset(name, catalog, max(files) + 1, read, lambda stage: stage - 1 in files, about=about)


def hiding_unseen(dataset: Dataset) -> Dataset:
    """Return a dataset whose items are there to recommend from the stage on that has their first event."""

    def visible(stage: int) -> NDArray[np.bool_]:
        earlier = [dataset.block(s).events for s in range(1, stage + 1)]
        return np.bincount(np.concatenate(earlier), minlength=len(dataset.catalog.items)) > 0

    return replace(dataset, visible=visible, about={**dataset.about, "recommended": "visible"})


def _block_files(folder: Path) -> tuple[str, dict[int, Path]]:
    """Return the name that all block files of a folder begin with, and the files by number."""
    found = [(m, path) for path in sorted(folder.iterdir()) if (m := _BLOCK_FILE.fullmatch(path.name))]
    if not found:
        raise InputError(f"dataset.path={folder}: no file is named *.all.block_<b>.json")
    (first, one), *others = found
    for match, other in others:
        if match["name"] != first["name"]:
            raise InputError(f"{folder}: {one.name} and {other.name} are of different datasets; keep those of one")
    return first["name"], {int(match["number"]): path for match, path in found}


def _only(folder: Path, pattern: str, required: bool) -> Path | None:
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        raise InputError(f"{folder}: {len(found)} files match {pattern} ({found[0].name}, {found[1].name}); keep one")
    if required and not found:
        raise InputError(f"{folder}: no file matches {pattern}, the semantic IDs of the items")
    return found[0] if found else None


def read_block(path: Path, stage: int, catalog: Catalog) -> Block:
    """Read one block file; a user's lists become arrays as soon as they are parsed.

    Raises:
        InputError: the file is broken, or names an item that has no semantic ID.
    """

    def columns(record: Pairs) -> dict[str, Any]:
        return {key: _indices(value, catalog.position) for key, value in record}

    users = read_object(path, columns)
    if not users:
        raise InputError(f"{path}: the block holds no user")
    return block_from_lists(stage, {user: _pair(path, user, record, catalog) for user, record in users.items()})


def _indices(value: Any, position: dict[str, int]) -> Any:
    """Turn a list of known items into indices; leave anything else for `_column` to name, which knows the user."""
    if not isinstance(value, list):
        return value
    try:
        return np.fromiter((position[item] for item in value), np.int32, len(value))
    except (KeyError, TypeError):
        return value


def _pair(path: Path, user: str, record: Any, catalog: Catalog) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    place = f"{path}: user {user!r}"
    if not isinstance(record, dict):
        raise InputError(f"{place} needs an object with 'previous_block' and 'current_block'")
    previous = _column(place, record, "previous_block", catalog)
    current = _column(place, record, "current_block", catalog)
    if not len(current):
        raise InputError(f"{place} has no events in 'current_block'; leave such users out")
    return previous, current


def _column(place: str, record: dict[str, Any], key: str, catalog: Catalog) -> NDArray[np.int32]:
    value = record.get(key)
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list):
        raise InputError(f"{place}: {key!r} is {'not a list' if key in record else 'missing'}; give the list of items")
    entry, item = next((n, i) for n, i in enumerate(value) if not isinstance(i, str) or i not in catalog.position)
    if isinstance(item, str):
        raise InputError(f"{place}: item {item!r} in {key!r} has no semantic ID in the index file")
    raise InputError(f"{place}: entry {entry + 1} of {key!r} is a {type(item).__name__}; item ids are strings")
