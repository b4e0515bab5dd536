"""PESO's proximal term, one softmax for each rank."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import AnchoredSettings


@dataclass(frozen=True, config=STRICT)
class RankKL(AnchoredSettings):
    """Softmax-KL over ranks, a variant in PESO (arXiv 2510.25093): a vector is a row of A and its column of B together.

    Each of a module's ranks is one direction B[:, k] A[k, :] and is held by itself.
    """

    name: Literal["rank_kl"] = "rank_kl"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take the anchors."""
        from peso_cli.methods import divergences
        from peso_cli.methods.anchored import anchored

        return anchored(self, start, "rank", divergences.softmax_kl)
