"""Settings that several regularizers share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT

Strength = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Reduction = Literal["mean", "sum"]

Schedule = Literal["constant", "rise", "fall"]
"""How a strength goes over a stage."""

Group = Literal["factor", "module", "layer"]
"""What one vector v^g of the paper is: each factor, A and B of a module, or all factors of a decoder layer."""


def scheduled(schedule: Schedule, progress: float) -> float:
    """Return the factor on a strength after a share of a stage's planned steps, from 0 to 1."""
    return {"constant": 1.0, "rise": progress, "fall": 1.0 - progress}[schedule]


def reduced(strength: float, reduction: Reduction, modules: int) -> float:
    """Return the factor on each module's penalty with which they add up to strength x their `sum` or their `mean`."""
    return strength / (modules if reduction == "mean" else 1)


@dataclass(frozen=True, config=STRICT)
class AnchoredSettings:
    """What all regularizers share that hold the factors to earlier ones.

    Attributes:
        strength: the weight of the penalty.
        reduction: `sum` over modules as papers write it, or that divided by their number (`mean`).
        anchors: the factors that the `latest` stage left, or the mean of the penalties over those of `all` earlier
            stages; where no stage left any, the factors as they stand when the stage begins.
        scale: the penalty as `published`, or that of each vector (or factor) times its number of entries
            (`per_parameter`).
        schedule: how the strength goes over the stage.
    """

    strength: Strength
    reduction: Reduction
    anchors: Literal["latest", "all"]
    scale: Literal["published", "per_parameter"]
    schedule: Schedule
