"""Embeddings that were made elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT
from peso_cli.semantic_ids.parts import Floats, Items

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True, config=STRICT)
class ArrayEmbedding:
    """Rows of a .npy file of floating-point numbers.

    Attributes:
        path: the file; an array of (rows, width).
        items: which item each row is of: a .json file with a list of ids, else a text file with one id a line. None:
            the rows are those of the catalog, in its order.
    """

    path: str
    items: str | None
    name: Literal["array"] = "array"

    def embed(self, items: Items, display: Display) -> Floats:
        """Return (items, width) vectors.

        Raises:
            InputError: a file is missing or broken, doesn't fit the items, or holds what is no number.
        """
        from peso_cli.semantic_ids.embeddings.stored import read_embeddings

        return read_embeddings(self, items, display)
