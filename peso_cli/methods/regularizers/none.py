"""Nothing holds the factors back."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, RegularizerStart


@dataclass(frozen=True, config=STRICT)
class NoRegularizer:
    """Nothing holds the factors back."""

    name: Literal["none"] = "none"

    def begin(self, start: RegularizerStart) -> None:
        """Return no penalty."""
        return None
