"""All weights of the backbone train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.artifacts import ADAPTER_FOLDER, WEIGHTS_FOLDER
from peso_cli.methods.parts import STRICT, AdapterStart, State

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class FullWeights:
    """All weights of the backbone train; what stage 1 does to a backbone built from a config."""

    name: Literal["full_weights"] = "full_weights"
    trains: ClassVar[bool] = True

    def begin(self, start: AdapterStart) -> nn.Module:
        """Fold the previous adapter in, where there is one, and train everything, in float32.

        In bfloat16 most steps are smaller than the distance to the next number and would be lost.
        """
        import torch

        from peso_cli.backbones.loading import merge_adapter

        model = start.model
        model.to(torch.float32)  # type: ignore[arg-type]
        if start.past:
            model = merge_adapter(model, start.past[-1].folder / ADAPTER_FOLDER)
        return model.requires_grad_(True)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write all weights and the model's config; tied weights are stored once."""
        model.save_pretrained(str(folder / WEIGHTS_FOLDER))  # type: ignore[operator]

    def state(self, model: nn.Module) -> State:
        """The weights are all there is."""
        return {}
