"""What a configuration may say about how items get their semantic IDs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, FolderName, Natural


@dataclass(frozen=True, config=STRICT)
class Tokenizer:
    """From the texts of items to semantic IDs, beside the embedding and the quantizer.

    Attributes:
        name: the name under which the semantic IDs are stored in the dataset's folder.
        text: the template of an item's text, with {title}, {description}, {brand} and {categories}.
        fit_on: the items that shape the codebooks: those visible at `stage_1` (nothing of later stages leaks), or `all`
            (as published). Items of later stages are encoded with the frozen codebooks.
        resolve: what is done about items that share a semantic ID: `none`; `sinkhorn` encodes the last level of those
            that share again, balanced; `reassign` moves last codes at the least cost; `extra_level` adds a level that
            tells them apart. Items of equal text go on sharing, except with `extra_level`.
        seed: of everything random in the making.
    """

    name: FolderName
    text: Annotated[str, Field(min_length=1)]
    fit_on: Literal["stage_1", "all"]
    resolve: Literal["none", "sinkhorn", "reassign", "extra_level"]
    seed: Natural
