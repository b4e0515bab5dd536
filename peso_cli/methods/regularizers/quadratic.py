"""The softmax-KL proximal term to second order."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import AnchoredSettings, Group


@dataclass(frozen=True, config=STRICT)
class Quadratic(AnchoredSettings):
    """Sum over g of 1/2 ||v^g - anchor^g||_H^2, H = diag(p) - p p^T at p = softmax(anchor^g).

    What softmax_kl is for small steps (PESO, arXiv 2510.25093, the corollary on its curvature): half the variance of
    the step under p. Unlike the KL divergence it goes on growing with the square of the step.

    Attributes:
        group: what one vector v^g is.
    """

    group: Group
    name: Literal["quadratic"] = "quadratic"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take the anchors."""
        from peso_cli.methods import distances
        from peso_cli.methods.anchored import anchored

        return anchored(self, start, self.group, distances.quadratic)
