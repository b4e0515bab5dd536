"""What the loss of an example counts, by the stage that it comes from; shared by the memories that look back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Weight = Annotated[float, Field(strict=True, ge=0.0, le=1e6, allow_inf_nan=False)]
"""A factor on a loss; its bound keeps sums of weighted losses far inside float32."""

Decay = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
"""What is left of a weight one stage further back."""


def weight_of(stages_back: int, past_weight: Weight, decay: Decay) -> float:
    """Return the factor on the loss of a stage's examples: 1 for the stage that trains itself (`stages_back` 0)."""
    return past_weight * decay ** (stages_back - 1) if stages_back else 1.0
