"""Adapters: how past factors enter the forward pass and how a stage begins.

An adapter is a frozen dataclass that its YAML fills in. It says whether it `trains` and knows two things: to `begin` a
stage on a backbone and to `save` what the stage learnt, in a standard format (PEFT's or plain weights).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from peso_cli.artifacts import ADAPTER_FOLDER, WEIGHTS_FOLDER
from peso_cli.files import write_atomically, write_json

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

_STRICT = ConfigDict(extra="forbid")


class Adapter(Protocol):
    """What a stage needs of an adapter."""

    trains: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name by which a config chooses it."""

    def begin(self, model: PreTrainedModel, lora: dict[str, Any], previous: Path | None) -> nn.Module:
        """Return the module that this stage trains; just what it trains requires gradients.

        Args:
            model: the backbone with the newest whole weights of its lineage.
            lora: arguments of peft's LoraConfig: shape, targets, rows of the embedding that train.
            previous: folder of the newest adapter in the lineage, or None if no stage has left one.
        """

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what the stage learnt under the artifact's `folder`, as safetensors."""


@dataclass(frozen=True, config=_STRICT)
class Evolving:
    """One LoRA adapter that every stage goes on training (LoRA: arXiv 2106.09685; PESO's "single evolving LoRA")."""

    name: Literal["evolving"] = "evolving"
    trains: ClassVar[bool] = True

    def begin(self, model: PreTrainedModel, lora: dict[str, Any], previous: Path | None) -> nn.Module:
        """Continue the previous adapter, or start a fresh one (A random, B zero)."""
        from peft import LoraConfig, PeftModel, get_peft_model

        if previous is not None:
            return PeftModel.from_pretrained(model, str(previous), is_trainable=True, torch_device="cpu")
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the adapter in PEFT format, without the machine's paths: equal adapters are equal files."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        learnt = get_peft_model_state_dict(model, save_embedding_layers=False)
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in learnt.items()}
        target = folder / ADAPTER_FOLDER
        write_atomically(target / "adapter_model.safetensors", lambda part: save_file(tensors, part, {"format": "pt"}))
        write_json(target / "adapter_config.json", _adapter_config(model))


def _adapter_config(model: nn.Module) -> dict[str, Any]:
    settings = model.peft_config["default"].to_dict()  # type: ignore[union-attr, index]
    base = settings["base_model_name_or_path"]
    return {
        **{key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()},
        "base_model_name_or_path": None if not base or Path(base).exists() else base,
        "inference_mode": True,
    }


@dataclass(frozen=True, config=_STRICT)
class FullWeights:
    """All weights of the backbone train; what stage 1 does to a backbone built from a config."""

    name: Literal["full_weights"] = "full_weights"
    trains: ClassVar[bool] = True

    def begin(self, model: PreTrainedModel, lora: dict[str, Any], previous: Path | None) -> nn.Module:
        """Fold the previous adapter in, where there is one, and train everything, in float32.

        In bfloat16 most steps are smaller than the distance to the next number and would be lost.
        """
        import torch

        from peso_cli.backbones.loading import merge_adapter

        model.to(torch.float32)  # type: ignore[arg-type]
        if previous is not None:
            model = merge_adapter(model, previous)
        return model.requires_grad_(True)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write all weights and the model's config; tied weights are stored once."""
        model.save_pretrained(str(folder / WEIGHTS_FOLDER))  # type: ignore[operator]


@dataclass(frozen=True, config=_STRICT)
class Frozen:
    """Nothing trains after stage 1; later stages only score what stage 1 left behind."""

    name: Literal["frozen"] = "frozen"
    trains: ClassVar[bool] = False

    def begin(self, model: PreTrainedModel, lora: dict[str, Any], previous: Path | None) -> nn.Module:
        """Return the model with no trainable parameter."""
        return model.requires_grad_(False)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write nothing: the lineage holds all there is."""


AdapterPart = Annotated[Evolving | FullWeights | Frozen, Field(discriminator="name")]
"""The adapters a config can choose; a new one is added here."""
