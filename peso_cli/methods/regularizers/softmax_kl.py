"""PESO's proximal term."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import AnchoredSettings, Group, Strength


@dataclass(frozen=True, config=STRICT)
class SoftmaxKL(AnchoredSettings):
    """PESO's proximal term (arXiv 2510.25093): strength x sum over g of KL(softmax(v^g) || softmax(anchor^g)).

    The released code averages KL(A) + KL(B) over modules: group `factor`, reduction `mean`.

    Attributes:
        group: what one vector v^g is.
        smoothing: added to every probability before both are normalised: 1e-8 in the released code, 0 in the paper.
    """

    group: Group
    smoothing: Strength
    name: Literal["softmax_kl"] = "softmax_kl"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take the anchors."""
        from peso_cli.methods import divergences
        from peso_cli.methods.anchored import anchored

        smoothed = divergences.smoothed_softmax_kl(self.smoothing)
        return anchored(self, start, self.group, smoothed if self.smoothing else divergences.softmax_kl)
