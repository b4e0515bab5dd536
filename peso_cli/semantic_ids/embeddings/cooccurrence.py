"""Embeddings of items by the company they keep in stage 1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Natural, Positive
from peso_cli.semantic_ids.parts import Floats, Items

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True, config=STRICT)
class Cooccurrence:
    """U sqrt(S) of a truncated SVD of the items' PPMI matrix (Levy & Goldberg, NIPS 2014).

    Two items co-occur where a user has them at most `window` events apart; only events of stage 1 count, so that
    nothing of later stages leaks. Items that co-occur with none get the zero vector, and are counted.

    Attributes:
        width: of the vectors.
        window: how many events apart two items may be.
        seed: of the randomised SVD.
    """

    width: Positive
    window: Positive
    seed: Natural
    name: Literal["cooccurrence"] = "cooccurrence"

    def embed(self, items: Items, display: Display) -> Floats:
        """Return (items, width) vectors.

        Raises:
            InputError: no more items than `width` co-occur with others.
        """
        from peso_cli.semantic_ids.embeddings.company import embed_by_company

        return embed_by_company(self, items, display)
