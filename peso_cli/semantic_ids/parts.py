"""What semantic IDs are made of: items, an embedding, a quantizer. A part is one class in one file, and its YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from peso_cli.stages import Display

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]
Tick = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Items:
    """The items that are to get semantic IDs.

    Attributes:
        ids: item ids.
        texts: one text for each item, made by the configured template; empty where the item has none.
        brands: brand of each item, empty where unknown; only quality is measured with it.
        categories: first category of each item, likewise.
        stage: (items,) the first stage at which each item is visible.
        histories: gives the item sequences of stage 1 without what validation and test ask for, as indices into `ids`,
            one array for each user.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    brands: tuple[str, ...]
    categories: tuple[str, ...]
    stage: NDArray[np.int32]
    histories: Callable[[], Sequence[NDArray[np.int32]]]


class Embedding(Protocol):
    """Turns items into vectors."""

    @property
    def name(self) -> str:
        """Its name in reports."""

    def embed(self, items: Items, display: Display) -> Floats:
        """Return (items, width) vectors; those of items that were embedded before come from a cache.

        Raises:
            InputError: what the settings name isn't there, or doesn't fit the items.
        """


class Codebooks(Protocol):
    """A fitted quantizer, frozen: level by level, the centre nearest to what the levels before left over.

    Attributes:
        centers: for each level, (codes, latent width) its centres.
    """

    @property
    def centers(self) -> tuple[Floats, ...]:
        """For each level, (codes, latent width) its centres."""

    def latents(self, embeddings: Floats) -> Floats:
        """Return the (n, latent width) vectors that the levels quantize."""

    def decode(self, latents: Floats) -> Floats:
        """Return the (n, width) embeddings that sums of centres (n, latent width) stand for."""

    def tensors(self) -> Mapping[str, NDArray[np.float32]]:
        """Return everything that is needed to make it again."""


class Quantizer(Protocol):
    """Fits codebooks."""

    @property
    def name(self) -> str:
        """Its name in paths and reports."""

    @property
    def levels(self) -> int:
        """Number of codes in a semantic ID."""

    @property
    def codes(self) -> int:
        """Number of codes of each level."""

    def fit(self, embeddings: Floats, seed: int, tick: Tick) -> tuple[Codebooks, Codes]:
        """Fit codebooks to (n, width) embeddings.

        Returns:
            The codebooks, and the (n, levels) codes of the embeddings, which need not be the nearest ones where the
            quantizer balances them.

        Raises:
            InputError: there are fewer distinct embeddings than codes.
        """

    def load(self, tensors: Mapping[str, NDArray[np.float32]]) -> Codebooks:
        """Make codebooks again from their tensors."""
