"""Distance of vectors of factors to their anchors."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import AnchoredSettings, Group


@dataclass(frozen=True, config=STRICT)
class L2(AnchoredSettings):
    """Sum over g of ||v^g - anchor^g||^2, or of the distances themselves as in the released code (`unsquared`).

    Attributes:
        group: what one vector v^g is; squares add up to the same in all groups.
        unsquared: the distance, not its square.
    """

    group: Group
    unsquared: bool
    name: Literal["l2"] = "l2"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take the anchors."""
        from peso_cli.methods import distances
        from peso_cli.methods.anchored import anchored

        return anchored(self, start, self.group, distances.plain if self.unsquared else distances.squared)
