"""The catalog: every item with its semantic ID and, where known, its title."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.reading import read_object
from peso_cli.errors import InputError

_TOKEN = re.compile(r"<([a-z])_(0|[1-9][0-9]{0,5})>")


def token_text(level: int, code: int) -> str:
    """Return the token text of a code, e.g. `<b_7>` for level 1, code 7."""
    return f"<{chr(ord('a') + level)}_{code}>"


@dataclass(frozen=True, eq=False)
class Catalog:
    """All items of a dataset.

    Attributes:
        items: item ids; an item's position here is its index everywhere else.
        codes: (items, levels) the code of each item at each level. Items may share a row (a collision).
        titles: item id to title, for the items that have one.
        sizes: number of codes of each level, where codebooks have more codes than the items use.
        visible: (items,) which items there are to recommend, None for all. The others keep their place and their codes,
            but no place among the distinct semantic IDs.
    """

    items: tuple[str, ...]
    codes: NDArray[np.int32]
    titles: dict[str, str]
    sizes: tuple[int, ...] | None = None
    visible: NDArray[np.bool_] | None = None

    @property
    def levels(self) -> int:
        """Number of codes in a semantic ID."""
        return int(self.codes.shape[1])

    @cached_property
    def level_sizes(self) -> tuple[int, ...]:
        """Number of codes of each level: the declared one, else the largest code used, plus one."""
        return self.sizes or tuple(int(top) + 1 for top in self.codes.max(axis=0))

    @cached_property
    def position(self) -> dict[str, int]:
        """Item id to index."""
        return {item: index for index, item in enumerate(self.items)}

    @cached_property
    def _grouped(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        if self.visible is None:
            return _group(self.codes, self.level_sizes)
        sids, group = _group(self.codes[self.visible], self.level_sizes)
        sid_of = np.full(len(self.items), -1, dtype=np.int64)
        sid_of[self.visible] = group
        return sids, sid_of

    @property
    def sids(self) -> NDArray[np.int32]:
        """(distinct SIDs, levels) the distinct semantic IDs in lexicographic order."""
        return self._grouped[0]

    @property
    def sid_of(self) -> NDArray[np.int64]:
        """(items,) the row of `sids` that each item carries, -1 for one that isn't visible."""
        return self._grouped[1]

    @cached_property
    def sid_sizes(self) -> NDArray[np.int64]:
        """(distinct SIDs,) how many items share each semantic ID."""
        return np.bincount(self.sid_of[self.sid_of >= 0], minlength=len(self.sids))

    @cached_property
    def first_items(self) -> NDArray[np.int64]:
        """(distinct SIDs,) the lowest index of an item that carries each semantic ID."""
        carriers = np.flatnonzero(self.sid_of >= 0)
        first = np.full(len(self.sids), len(self.items), dtype=np.int64)
        np.minimum.at(first, self.sid_of[carriers], carriers)
        return first

    def seen(self, visible: NDArray[np.bool_]) -> Catalog:
        """Return the catalog of which only the (items,) marked items are there to recommend."""
        return replace(self, visible=visible)

    def sid_text(self, item: int) -> str:
        """Return the semantic ID of the item at a catalog index as token texts."""
        return "".join(token_text(level, code) for level, code in enumerate(self.codes[item].tolist()))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids and codes of the visible items, and over the levels' sizes where they are declared.

        Items that come later leave it as it is.
        """
        rows = slice(None) if self.visible is None else self.visible
        items = self.items if self.visible is None else np.array(self.items, dtype=object)[rows].tolist()
        state = hashlib.sha256("\0".join(items).encode())
        state.update(np.ascontiguousarray(self.codes[rows]).tobytes())
        if self.sizes is not None:
            state.update(repr(self.sizes).encode())
        return state.hexdigest()


def _group(codes: NDArray[np.int32], sizes: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the distinct rows of (n, levels) codes in lexicographic order, and (n,) which of them each row is."""
    if math.prod(sizes) > np.iinfo(np.int64).max:
        sids, group = np.unique(codes, axis=0, return_inverse=True)
        return sids, group.reshape(-1).astype(np.int64)
    # One number for each semantic ID, in the same order: numbers are sorted several times as fast as rows.
    distinct, group = np.unique(np.ravel_multi_index(tuple(codes.T), sizes), return_inverse=True)
    sids = np.stack(np.unravel_index(distinct, sizes), axis=1).astype(np.int32)
    return sids, group.astype(np.int64)


def read_catalog(index: Path, texts: Path | None = None) -> Catalog:
    """Read a released index file and, where given, the file of item texts.

    Raises:
        InputError: a file is missing or broken, an item's semantic ID is malformed, or lengths differ.
    """
    table = read_object(index)
    if not table:
        raise InputError(f"{index}: holds no item")
    rows = [_parse_sid(index, item, tokens) for item, tokens in table.items()]
    for item, row in zip(table, rows, strict=True):
        if len(row) != len(rows[0]):
            raise InputError(f"{index}: item {item!r} has {len(row)} levels, the first item has {len(rows[0])}")
    return Catalog(tuple(table), np.array(rows, dtype=np.int32), _read_titles(texts) if texts else {})


def _parse_sid(path: Path, item: str, tokens: Any) -> list[int]:
    if not isinstance(tokens, list) or not tokens:
        raise InputError(f"{path}: item {item!r} has no semantic ID; give it a list such as ['<a_1>', '<b_2>']")
    codes = []
    for level, token in enumerate(tokens):
        match = _TOKEN.fullmatch(token) if isinstance(token, str) else None
        if not match or match[1] != chr(ord("a") + level):
            wanted = f"expected one such as {token_text(level, 0)!r}"
            raise InputError(f"{path}: item {item!r} has {token!r} at level {level + 1}; {wanted}")
        codes.append(int(match[2]))
    return codes


def _read_titles(path: Path) -> dict[str, str]:
    titles = {}
    for item, text in read_object(path).items():
        if not isinstance(text, dict):
            raise InputError(f"{path}: item {item!r} needs an object such as {{'title': …}}")
        title = text.get("title")
        if not isinstance(title, str | None):
            raise InputError(f"{path}: item {item!r} has {title!r} as its title, which is no text")
        if title and title.strip():
            titles[item] = " ".join(title.split())
    return titles
