"""The data of every stage so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Portion
from peso_cli.methods.weights import Decay, Weight, weight_of

if TYPE_CHECKING:
    from peso_cli.data.examples import Examples


@dataclass(frozen=True, config=STRICT)
class All:
    """The data of every stage so far.

    Attributes:
        past_weight: factor on the loss of an example of the stage before.
        decay: that factor shrinks so for every stage further back.
    """

    past_weight: Weight
    decay: Decay
    name: Literal["all"] = "all"

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return all stages up to this one."""
        return tuple(range(1, stage + 1))

    def select(self, stage: int, examples: Callable[[int], Examples], seed: int) -> tuple[Portion, ...]:
        """Return all examples of those stages."""
        return tuple(
            Portion(examples(s), weight_of(stage - s, self.past_weight, self.decay)) for s in self.stages(stage)
        )
