"""What is done about items that share a semantic ID though their texts differ.

Later items avoid the semantic IDs that earlier ones have; those never change. Only groups in which items share are
touched, so that a catalog of a million items takes seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from peso_cli.errors import InputError
from peso_cli.semantic_ids.balancing import balance
from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats
from peso_cli.semantic_ids.reassignment import reassign
from peso_cli.semantic_ids.sharing import Marks, Numbers, numbered
from peso_cli.semantic_ids.units import units_of

Kind = Literal["none", "sinkhorn", "reassign", "extra_level"]

_LEAST_EXTRA = 16
"""Fewest numbers of a further level."""

_MORE = "make the semantic IDs anew with tokenizer.fit_on=all, or with more codes or levels of the quantizer"


@dataclass(frozen=True, eq=False)
class Given:
    """Semantic IDs that items have and keep.

    Attributes:
        codes: (items, levels), the further level included where there is one.
        alike: (items,) the same number for items that can't be told apart.
        level_sizes: number of codes of each level.
    """

    codes: Codes
    alike: Numbers
    level_sizes: tuple[int, ...]

    def with_more(self, codes: Codes, alike: Numbers) -> Given:
        """Return these and more items behind them."""
        return Given(np.concatenate([self.codes, codes]), np.concatenate([self.alike, alike]), self.level_sizes)


def nothing_given(kind: Kind, codebooks: Codebooks, codes: Codes) -> Given:
    """Return that nobody has a semantic ID yet, with the sizes of the levels that are to be.

    A further level has a power of two of numbers: at least 16, and twice as many as the items (n, levels) that share
    most need, for later items share as well.
    """
    sizes = tuple(len(centers) for centers in codebooks.centers)
    if kind == "extra_level":
        most = int(np.bincount(numbered(codes)).max())
        sizes = (*sizes, max(_LEAST_EXTRA, 1 << (2 * most - 1).bit_length()))
    return Given(np.zeros((0, len(sizes)), np.int32), np.zeros(0, np.int64), sizes)


def resolve(kind: Kind, codebooks: Codebooks, embeddings: Floats, codes: Codes, alike: Numbers, given: Given) -> Codes:
    """Give items semantic IDs out of their codes, so that they share fewer of them.

    Args:
        kind: `none` leaves the codes as they are. `sinkhorn` encodes the last level of items that share again,
            balanced; what still shares is left so. `reassign` moves last codes at the least squared error; items that
            aren't alike share no more. `extra_level` adds a level that numbers the items of equal codes.
        codebooks: what the codes belong to.
        embeddings: (items, width).
        codes: (items, levels of the codebooks), which stay as they are.
        alike: (items,) the same number for items that can't be told apart, those of `given` included. They go on
            sharing, except with `extra_level`.
        given: the semantic IDs of earlier items, made with the same kind.

    Returns:
        (items, levels) codes, with the further level where there is one; their sizes are `given.level_sizes`.

    Raises:
        InputError: there are more items to tell apart than semantic IDs.
    """
    if kind == "none":
        return codes.copy()
    if kind == "extra_level":
        return _extend(codebooks, embeddings, codes, given)
    resolved, joins = _join(codes, alike, given)
    if not joins.all():
        own = np.flatnonzero(~joins)
        step = balance if kind == "sinkhorn" else reassign
        resolved[own] = step(codebooks, embeddings, own, codes[own], alike[own], given.codes)
    return resolved


def _join(codes: Codes, alike: Numbers, given: Given) -> tuple[Codes, Marks]:
    """Give items that are alike to an earlier one its semantic ID, and tell which items these are."""
    known, first = np.unique(given.alike, return_index=True)
    joins = np.isin(alike, known)
    resolved = codes.copy()
    resolved[joins] = given.codes[first[np.searchsorted(known, alike[joins])]]
    return resolved, joins


def _extend(codebooks: Codebooks, embeddings: Floats, codes: Codes, given: Given) -> Codes:
    """Number the items of equal codes, on from those that have them already."""
    both = np.concatenate([given.codes[:, :-1], codes])
    number = _ranks(numbered(both))
    late = np.flatnonzero(number >= given.level_sizes[-1])
    if len(late):
        _find_room(codebooks, embeddings[late - len(given.codes)], late, both, number, given.level_sizes[-1])
    return np.concatenate([both, number[:, None].astype(np.int32)], axis=1)[len(given.codes) :]


def _ranks(groups: Numbers) -> Numbers:
    """Return (n,) how many rows before each one are of the same group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return ranks


def _find_room(
    codebooks: Codebooks, embeddings: Floats, late: Numbers, both: Codes, number: Numbers, room: int
) -> None:
    """Give items that the further level has no number for the nearest last code that has one, in `both` and `number`.

    Args:
        codebooks: what the codes belong to.
        embeddings: (late items, width).
        late: (late items,) their rows.
        both: (items, levels) codes of all items.
        number: (items,) their numbers.
        room: numbers that there are.
    """
    units = units_of(codebooks, embeddings, np.arange(len(late)), both[late], late)
    errors = units.errors(units.of, codebooks.centers[-1])
    prefix = numbered(both[:, :-1])
    for group in np.unique(prefix[late]):
        placed = (prefix == group) & (number < room)
        held = np.bincount(both[placed, -1], minlength=errors.shape[1])
        for row in np.flatnonzero(prefix[late] == group):
            if held.min() >= room:
                raise InputError(f"tokenizer.resolve=extra_level: no room for {held.sum() + 1:,} items; {_MORE}")
            code = int(np.where(held < room, errors[row], np.inf).argmin())
            both[late[row], -1], number[late[row]] = code, held[code]
            held[code] += 1
