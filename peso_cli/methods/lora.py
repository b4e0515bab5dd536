"""LoRA adapters of peft: beginning a fresh one, writing one, and finding the factors in a model or in a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from peso_cli.artifacts import ADAPTER_FOLDER, Artifact
from peso_cli.files import blaming, write_json, write_tensors
from peso_cli.methods.parts import AdapterStart, Factors, State

ADAPTER = "default"
"""The name that peft gives an adapter unless told otherwise."""

_FACTORS = (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"))

FACTOR_A, FACTOR_B = ".A", ".B"
"""How a stage's state names a module's own factors: behind the module's name."""


def fresh_adapter(start: AdapterStart) -> nn.Module:
    """Return the backbone with a new adapter: A uniform in +-1/sqrt(in), B zero."""
    return get_peft_model(start.model, LoraConfig(task_type="CAUSAL_LM", **start.lora))


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write a model's adapter under an artifact's folder."""
    learnt = get_peft_model_state_dict(model, save_embedding_layers=False)
    write_adapter(folder, learnt, model.peft_config[ADAPTER].to_dict())  # type: ignore[union-attr, index]


def write_adapter(folder: Path, learnt: State, settings: dict[str, Any]) -> None:
    """Write an adapter in PEFT format, without the machine's paths: equal adapters are equal files.

    Args:
        folder: the artifact's folder.
        learnt: tensors by the names that peft gives them.
        settings: peft's LoraConfig as a dictionary.
    """
    target = folder / ADAPTER_FOLDER
    write_tensors(target / "adapter_model.safetensors", learnt, {"format": "pt"})
    base = settings["base_model_name_or_path"]
    document = {
        **{key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()},
        "base_model_name_or_path": None if not base or Path(base).exists() else base,
        "inference_mode": True,
    }
    write_json(target / "adapter_config.json", document)


def lora_factors(model: nn.Module, adapter: str = ADAPTER) -> Factors:
    """Return each target module's own live A (rank, in) and B (out, rank), by module name; empty without an adapter."""
    found = {}
    for name, module in model.named_modules():
        for a, b in _FACTORS:
            if adapter in getattr(module, a, {}):
                found[name] = (_own(getattr(module, a)[adapter]), _own(getattr(module, b)[adapter]))
    return found


def _own(factor: nn.Module | nn.Parameter) -> nn.Parameter:
    """Return the parameter that trains; one that past factors are stacked on is parametrized."""
    if isinstance(factor, nn.Parameter):
        return factor
    if parametrize.is_parametrized(factor, "weight"):
        weight = factor.parametrizations["weight"].original  # type: ignore[index, union-attr]
    else:
        weight = factor.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def own_factors(artifact: Artifact) -> Factors:
    """Return the factors that a finished stage trained, by module name.

    They lie in its state where its adapter holds those of other stages too, else in the adapter itself.
    """
    own = artifact.read_state("adapter")
    if any(name.endswith(FACTOR_A) for name in own):
        modules = [name.removesuffix(FACTOR_A) for name in own if name.endswith(FACTOR_A)]
        return {module: (own[module + FACTOR_A], own[module + FACTOR_B]) for module in modules}
    if artifact.adapter is None:
        return {}
    path = artifact.adapter / "adapter_model.safetensors"
    with blaming(path):
        return _of_peft(load_file(path))


@dataclass(frozen=True, eq=False)
class PastFactors(Sequence[Factors]):
    """The factors that finished stages trained, oldest first; each is read whenever it is asked for, and not before.

    Attributes:
        artifacts: the stages.
    """

    artifacts: Sequence[Artifact]

    def __len__(self) -> int:
        return len(self.artifacts)

    @overload
    def __getitem__(self, place: int) -> Factors: ...

    @overload
    def __getitem__(self, place: slice) -> PastFactors: ...

    def __getitem__(self, place: int | slice) -> Factors | PastFactors:
        """Return the factors at a place, or those of a part of the stages."""
        if isinstance(place, slice):
            return PastFactors(self.artifacts[place])
        return own_factors(self.artifacts[place])


def _of_peft(saved: dict[str, Tensor]) -> Factors:
    found = {}
    for a, b in _FACTORS:
        for ending in (f".{a}.weight", f".{a}"):
            for name in saved:
                if name.endswith(ending):
                    module = name.removesuffix(ending)
                    found[module] = (saved[name], saved[module + ending.replace(a, b)])
    return found
