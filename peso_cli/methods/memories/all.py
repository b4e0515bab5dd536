"""The data of every stage so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Portion

if TYPE_CHECKING:
    from peso_cli.data.examples import Examples


@dataclass(frozen=True, config=STRICT)
class All:
    """The data of every stage so far."""

    name: Literal["all"] = "all"

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return all stages up to this one."""
        return tuple(range(1, stage + 1))

    def select(self, stage: int, examples: Callable[[int], Examples], seed: int) -> tuple[Portion, ...]:
        """Return all examples of those stages."""
        return tuple(Portion(examples(s)) for s in self.stages(stage))
