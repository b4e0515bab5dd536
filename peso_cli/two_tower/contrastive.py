"""Contrastive: users and items are drawn to where the stage before had them, away from where it had the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import PositiveFloat
from peso_cli.methods.parts import STRICT, Penalty
from peso_cli.methods.settings import Strength
from peso_cli.two_tower.settings import LEARNER

if TYPE_CHECKING:
    from peso_cli.two_tower.parts import StrategyStart


@dataclass(frozen=True, config=STRICT)
class Contrastive:
    """strength x (InfoNCE of a step's users + InfoNCE of its items) to the vectors of the stage before.

    For the step's n users whom that stage knew, with z their vectors now and z' those it left,
    InfoNCE = -1/n sum_u log(exp(cos(z_u, z'_u) / tau) / sum_v exp(cos(z_u, z'_v) / tau)), v over the same users;
    likewise for the step's positive items. After the contrastive distillation of "Graph Structure Aware Contrastive
    Knowledge Distillation for Incremental Learning in Recommender Systems" (CIKM 2021), here on the vectors themselves,
    not on those of neighbours.

    Attributes:
        strength: the weight of the penalty.
        temperature: tau.
    """

    strength: Strength
    temperature: PositiveFloat
    name: Literal["contrastive"] = "contrastive"
    learner: ClassVar[str] = LEARNER

    def begin(self, start: StrategyStart) -> Penalty | None:
        """Keep the vectors of the stage before."""
        from peso_cli.two_tower.holding import to_previous

        return to_previous(start, self.strength, self.temperature, None) if self.strength else None
