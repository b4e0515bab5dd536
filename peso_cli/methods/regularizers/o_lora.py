"""What a new adapter reads is kept orthogonal to what earlier ones read."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import AnchoredSettings


@dataclass(frozen=True, config=STRICT)
class OLoRA(AnchoredSettings):
    """O-LoRA (arXiv 2310.14152): the sum of the absolute entries of Aprev A^T, as in its released code; B is free.

    Its sum over earlier adapters is here their mean (anchors `all`): multiply the strength by their number.
    """

    name: Literal["o_lora"] = "o_lora"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take the anchors."""
        from peso_cli.methods import matrices
        from peso_cli.methods.anchored import anchored

        return anchored(self, start, "a", matrices.matrixwise(matrices.entries_of_a))
