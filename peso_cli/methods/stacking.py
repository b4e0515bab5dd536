"""Past factors stacked upon the current ones: one LoRA of a larger rank, of which only the current part trains.

The live model is a plain peft model whose factors are computed: A is (past A's, own A), B is (past B's, own B), so that
what is written is what is trained, and all that works on a LoRA works on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from peso_cli.artifacts import ADAPTER_FOLDER, Artifact
from peso_cli.errors import InputError
from peso_cli.methods.lora import FACTOR_A, FACTOR_B, lora_factors, write_adapter
from peso_cli.methods.parts import Factors, State

_ADAPTER = "default"
_COMPUTED = ".parametrizations."

MAGNITUDES = ".magnitudes"
"""How a stage's state names the learnt magnitudes of a module: behind the module's name."""


class _StackedA(nn.Module):
    """Own A (rank, in) to all A's (past rank + rank, in)."""

    past: Tensor

    def __init__(self, past: Tensor) -> None:
        super().__init__()
        self.register_buffer("past", past, persistent=False)

    def forward(self, own: Tensor) -> Tensor:
        return torch.cat([self.past, own])


class _StackedB(nn.Module):
    """Own B (out, rank) to all B's (out, past rank + rank), each times its magnitude where magnitudes are learnt."""

    past: Tensor

    def __init__(self, past: Sequence[Tensor], learn_magnitudes: bool) -> None:
        super().__init__()
        self.register_buffer("past", torch.cat(list(past), dim=1), persistent=False)
        self.ranks = [b.shape[1] for b in past]
        ones = torch.ones(len(past) + 1, device=past[0].device)
        self.magnitudes = nn.Parameter(ones) if learn_magnitudes else None

    def forward(self, own: Tensor) -> Tensor:
        together = torch.cat([self.past, own], dim=1)
        if self.magnitudes is None:
            return together
        ranks = torch.tensor([*self.ranks, own.shape[1]], device=own.device)
        return together * self.magnitudes.repeat_interleave(ranks, output_size=together.shape[1])


def stack(model: nn.Module, past: Sequence[Factors], learn_magnitudes: bool) -> None:
    """Stack frozen past factors, oldest first, upon the live ones of a peft model, in place.

    Args:
        model: a peft model with one LoRA adapter of linear layers.
        past: factors by module as they enter the forward pass (normalised, say), each times the LoRA's scaling;
            empty changes nothing.
        learn_magnitudes: whether each past pair and the current one have a learnt factor, at first 1.

    Raises:
        InputError: the adapter enters an embedding, whose factors can't be computed ones.
    """
    if not past:
        return
    for name, (own_a, _) in lora_factors(model).items():
        module: Any = model.get_submodule(name)
        if _ADAPTER not in module.lora_A:
            raise InputError(f"backbone.lora.targets: a LoRA on the embedding ({name}) can't hold several stages' factors")
        pairs = [tuple(factor.to(own_a) for factor in factors[name]) for factors in past]
        a, b = _StackedA(torch.cat([a for a, _ in pairs])), _StackedB([b for _, b in pairs], learn_magnitudes)
        parametrize.register_parametrization(module.lora_A[_ADAPTER], "weight", a, unsafe=True)
        parametrize.register_parametrization(module.lora_B[_ADAPTER], "weight", b, unsafe=True)


def save_stacked(model: nn.Module, folder: Path) -> None:
    """Write all factors as one adapter in PEFT format, its rank the sum of theirs, its scaling the same."""
    settings = model.peft_config[_ADAPTER].to_dict()  # type: ignore[union-attr, index]
    learnt = get_peft_model_state_dict(model, save_embedding_layers=False)
    whole = {name: tensor for name, tensor in learnt.items() if _COMPUTED not in name}
    for name in lora_factors(model):
        module: Any = model.get_submodule(name)
        rank = len(module.lora_A[_ADAPTER].weight)
        whole |= {f"{name}.{part}.weight": getattr(module, part)[_ADAPTER].weight for part in ("lora_A", "lora_B")}
    times = rank / settings["r"]
    write_adapter(folder, whole, {**settings, "r": rank, "lora_alpha": settings["lora_alpha"] * times})


def own_state(model: nn.Module) -> State:
    """Return what the stage itself trained, apart from what is stacked upon it: factors and magnitudes by module."""
    state: State = {}
    for name, (a, b) in lora_factors(model).items():
        state |= {name + FACTOR_A: a, name + FACTOR_B: b}
        module: Any = model.get_submodule(name)
        if parametrize.is_parametrized(module.lora_B[_ADAPTER], "weight"):
            magnitudes = module.lora_B[_ADAPTER].parametrizations.weight[0].magnitudes
            state |= {} if magnitudes is None else {name + MAGNITUDES: magnitudes}
    return state


def continue_rows(model: nn.Module, previous: Artifact) -> None:
    """Let the vocabulary rows that train beside the factors go on from where a stage left them."""
    saved = load_file(previous.folder / ADAPTER_FOLDER / "adapter_model.safetensors")
    rows = {name: tensor for name, tensor in saved.items() if ".lora_" not in name}
    if rows:
        set_peft_model_state_dict(model, rows)


@torch.no_grad()
def inherit(model: nn.Module, factors: Factors) -> None:
    """Let the live factors begin as copies of a stage's."""
    for name, pair in lora_factors(model).items():
        for own, before in zip(pair, factors[name], strict=True):
            own.copy_(before)
