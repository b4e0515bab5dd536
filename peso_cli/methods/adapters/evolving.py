"""One LoRA adapter that every stage goes on training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.artifacts import ADAPTER_FOLDER
from peso_cli.files import blaming
from peso_cli.methods.parts import STRICT, AdapterStart, State

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class Evolving:
    """One LoRA adapter that every stage goes on training (LoRA: arXiv 2106.09685; PESO's "single evolving LoRA")."""

    name: Literal["evolving"] = "evolving"
    trains: ClassVar[bool] = True

    def begin(self, start: AdapterStart) -> nn.Module:
        """Continue the previous adapter, or start a fresh one (A random, B zero)."""
        from peft import PeftModel

        from peso_cli.methods.lora import fresh_adapter

        if not start.past:
            return fresh_adapter(start)
        folder = start.past[-1].folder / ADAPTER_FOLDER
        with blaming(folder):
            return PeftModel.from_pretrained(start.model, str(folder), is_trainable=True, torch_device="cpu")

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the adapter in PEFT format."""
        from peso_cli.methods.lora import save_adapter

        save_adapter(model, folder)

    def state(self, model: nn.Module) -> State:
        """The adapter is all there is."""
        return {}
