"""Embeddings of items' texts by a pretrained language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, FolderName, Positive
from peso_cli.semantic_ids.parts import Floats, Items

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True, config=STRICT)
class Encoder:
    """The last hidden states of an encoder or a causal language model, pooled over the tokens of a text, in float32.

    A text is embedded once: its vector stays in the cache, found by the model's files and the settings that shape it.
    Items without text get the zero vector, and are counted.

    Attributes:
        name: its name in reports.
        model: a fetched resource, a folder, or a model of the hub; safetensors, no code of its own.
        revision: a commit or tag of the hub's repository.
        pooling: `mean` over all tokens, or the `last` one's state, as causal models are read.
        max_tokens: tokens of a text beyond these are not read.
        normalise: whether vectors are scaled to length 1.
        batch_tokens: most padded tokens of a batch; changes speed and memory.
        device: where the model runs: `cuda`, `cpu`, or `auto`.
    """

    name: FolderName
    model: str
    revision: str | None
    pooling: Literal["mean", "last"]
    max_tokens: Positive
    normalise: bool
    batch_tokens: Positive
    device: Literal["auto", "cpu", "cuda"]

    def embed(self, items: Items, display: Display) -> Floats:
        """Return (items, width) vectors; those of texts that were embedded before come from the cache.

        Raises:
            InputError: the model can't be had or read, reads fewer tokens than `max_tokens`, or no item has a text.
            RunError: the model gives no numbers, or a file of the cache is damaged.
        """
        from peso_cli.semantic_ids.embeddings.encoding import embed_texts

        return embed_texts(self, items.texts, items.stage.tolist(), display)
