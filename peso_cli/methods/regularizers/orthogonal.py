"""New directions are pushed away from the anchored ones."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart
from peso_cli.methods.settings import AnchoredSettings


@dataclass(frozen=True, config=STRICT)
class Orthogonal(AnchoredSettings):
    """Squares of A Aprev^T and of B^T Bprev: new directions are pushed away from the anchored ones."""

    name: Literal["orthogonal"] = "orthogonal"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take the anchors."""
        from peso_cli.methods import matrices
        from peso_cli.methods.anchored import anchored

        return anchored(self, start, "factor", matrices.matrixwise(matrices.squares_of_a, matrices.squares_of_b))
