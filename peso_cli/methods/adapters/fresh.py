"""A new LoRA adapter in every stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, AdapterStart, State

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class Fresh:
    """A new LoRA adapter in every stage, over the backbone alone: nothing is taken over from the stage before."""

    name: Literal["fresh"] = "fresh"
    trains: ClassVar[bool] = True

    def begin(self, start: AdapterStart) -> nn.Module:
        """Start a fresh adapter (A random, B zero)."""
        from peso_cli.methods.lora import fresh_adapter

        return fresh_adapter(start)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the adapter in PEFT format."""
        from peso_cli.methods.lora import save_adapter

        save_adapter(model, folder)

    def state(self, model: nn.Module) -> State:
        """The adapter is all there is."""
        return {}
