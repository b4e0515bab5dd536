"""Settings that several regularizers share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Strength = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Reduction = Literal["mean", "sum"]
