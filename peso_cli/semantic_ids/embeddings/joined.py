"""What items say and the company they keep, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT
from peso_cli.semantic_ids.embeddings.collaborative import Collaborative
from peso_cli.semantic_ids.embeddings.cooccurrence import Cooccurrence
from peso_cli.semantic_ids.embeddings.encoder import Encoder
from peso_cli.semantic_ids.parts import Floats, Items

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True, config=STRICT)
class Joined:
    """[sqrt(1 - w) t, sqrt(w) c]: the text's vector t and that of the company c, each scaled to length 1.

    With w = `weight`, the cosine of two items is (1 - w) that of their texts plus w that of their company, where both
    have both. What an item lacks is zero.

    Attributes:
        text: embeds texts.
        company: embeds the items' co-occurrence in stage 1, or the taste of those who had them.
        weight: of the company, 0 to 1.
    """

    text: Encoder
    company: Annotated[Cooccurrence | Collaborative, Field(discriminator="name")]
    weight: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    name: Literal["joined"] = "joined"

    def embed(self, items: Items, display: Display) -> Floats:
        """Return (items, width of text + width of company) vectors.

        Raises:
            InputError: one of the two can't be made.
            RunError: likewise.
        """
        company = _scaled(self.company.embed(items, display), self.weight)
        text = _scaled(self.text.embed(items, display), 1.0 - self.weight)
        return np.ascontiguousarray(np.hstack([text, company]))


def _scaled(vectors: Floats, share: float) -> Floats:
    """Return vectors of squared length `share`; zero vectors stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = (vectors / np.where(lengths, lengths, 1.0) * share**0.5).astype(np.float32)
    return scaled
