"""Distance of each factor to its anchor."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import Reduction, Strength


@dataclass(frozen=True, config=STRICT)
class L2:
    """Squared distance to the anchor, or the distance itself as in the released code (`unsquared`)."""

    strength: Strength
    reduction: Reduction
    unsquared: bool
    name: Literal["l2"] = "l2"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Anchor every factor at its present value."""
        from peso_cli.methods import distances
        from peso_cli.methods.anchored import anchored

        distance = distances.plain_distance if self.unsquared else distances.squared_distance
        return anchored(start, self.strength, self.reduction, distance, distance)
