"""Types of settings that several groups share."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid")
"""For dataclasses of settings: an unknown key is an error."""

Positive = Annotated[int, Field(strict=True, ge=1)]
Natural = Annotated[int, Field(strict=True, ge=0)]
Fraction = Annotated[float, Field(strict=True, ge=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, gt=0.0, le=1e30, allow_inf_nan=False)]
Scale = Annotated[float, Field(strict=True, gt=0.0, le=1e6, allow_inf_nan=False)]
"""A learning rate, and a factor on one; their bounds keep the product inside float32, beyond which no step is taken."""
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
