"""Nothing trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, AdapterStart, State

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class Frozen:
    """Nothing trains after stage 1; later stages only score what stage 1 left behind."""

    name: Literal["frozen"] = "frozen"
    trains: ClassVar[bool] = False

    def begin(self, start: AdapterStart) -> nn.Module:
        """Return the model with no trainable parameter."""
        return start.model.requires_grad_(False)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write nothing: the lineage holds all there is."""

    def state(self, model: nn.Module) -> State:
        """Nothing was learnt."""
        return {}
