"""New directions are pushed away from the anchored ones."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import Reduction, Strength


@dataclass(frozen=True, config=STRICT)
class Orthogonal:
    """Squares of A Aprev^T and of B^T Bprev: new directions are pushed away from the anchored ones."""

    strength: Strength
    reduction: Reduction
    name: Literal["orthogonal"] = "orthogonal"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Anchor every factor at its present value."""
        from peso_cli.methods import distances
        from peso_cli.methods.anchored import anchored

        return anchored(start, self.strength, self.reduction, distances.orthogonality_a, distances.orthogonality_b)
