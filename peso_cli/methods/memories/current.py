"""Only the stage's own data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Portion

if TYPE_CHECKING:
    from peso_cli.data.examples import Examples


@dataclass(frozen=True, config=STRICT)
class Current:
    """Only the stage's own data."""

    name: Literal["current"] = "current"

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return the stage itself."""
        return (stage,)

    def select(self, stage: int, examples: Callable[[int], Examples], seed: int) -> tuple[Portion, ...]:
        """Return all examples of the stage."""
        return (Portion(examples(stage)),)
