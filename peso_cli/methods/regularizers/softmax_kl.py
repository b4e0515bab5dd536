"""PESO's proximal term."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import Reduction, Strength


@dataclass(frozen=True, config=STRICT)
class SoftmaxKL:
    """PESO's proximal term (arXiv 2510.25093): strength x sum over factors of KL(softmax(v) || softmax(anchor)).

    Attributes:
        strength: the paper's lambda.
        reduction: `sum` over factors as the paper writes it, or KL(A) + KL(B) averaged over modules (`mean`).
        smoothing: added to every probability before both are normalised: 1e-8 in the released code, 0 in the paper.
    """

    strength: Strength
    reduction: Reduction
    smoothing: Strength
    name: Literal["softmax_kl"] = "softmax_kl"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Anchor every factor at its present value."""
        from peso_cli.methods import distances
        from peso_cli.methods.anchored import anchored

        smoothed = partial(distances.smoothed_softmax_kl, smoothing=self.smoothing)
        compare = smoothed if self.smoothing else distances.softmax_kl
        return anchored(start, self.strength, self.reduction, compare, compare)
