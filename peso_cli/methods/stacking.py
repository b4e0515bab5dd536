"""Past factors stacked upon the current ones: one LoRA of a larger rank, of which only the current part trains.

The live model is a plain peft model whose factors are computed: A is (past A's, own A), B is (past B's, own B), so that
what is written is what is trained, and all that works on a LoRA works on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from peso_cli.artifacts import ADAPTER_FOLDER, Artifact
from peso_cli.errors import InputError
from peso_cli.files import blaming
from peso_cli.methods.lora import ADAPTER, FACTOR_A, FACTOR_B, fresh_adapter, lora_factors, own_factors, write_adapter
from peso_cli.methods.parts import AdapterStart, Factors, State

_COMPUTED = ".parametrizations."

MAGNITUDES = ".magnitudes"
"""How a stage's state names the learnt magnitudes of a module: behind the module's name."""


class _Stacked(nn.Module):
    """An own factor to all factors, the past ones first, side by side along the rank."""

    past: Tensor

    def __init__(self, past: Sequence[Tensor], rank_dimension: int) -> None:
        super().__init__()
        self.register_buffer("past", torch.cat(list(past), dim=rank_dimension), persistent=False)
        self.rank_dimension = rank_dimension

    def forward(self, own: Tensor) -> Tensor:
        return torch.cat([self.past, own], dim=self.rank_dimension)


class _Magnitudes(nn.Module):
    """All B's (out, whole rank) to the same, the columns of each pair times the pair's learnt magnitude."""

    pair: Tensor

    def __init__(self, pairs: Sequence[Tensor]) -> None:
        super().__init__()
        ranks = torch.tensor([b.shape[1] for b in pairs])
        self.magnitudes = nn.Parameter(torch.ones(len(pairs)).to(pairs[-1]))
        number = torch.arange(len(pairs)).repeat_interleave(ranks).to(pairs[-1].device)
        self.register_buffer("pair", number, persistent=False)

    def forward(self, stacked: Tensor) -> Tensor:
        return stacked * self.magnitudes[self.pair]


def normalised(factors: Factors, smoothing: float = 0.0, times: float = 1.0) -> Factors:
    """Return each factor divided by its own Frobenius norm, in float64; zeros stay zeros.

    Args:
        factors: A and B by module.
        smoothing: added to every norm.
        times: what B is multiplied with in addition.
    """
    return {name: (_unit(a, smoothing), times * _unit(b, smoothing)) for name, (a, b) in factors.items()}


def _unit(factor: Tensor, smoothing: float) -> Tensor:
    exact = factor.double()
    norm: Tensor = torch.linalg.vector_norm(exact) + smoothing
    return exact / norm.clamp(min=torch.finfo(exact.dtype).tiny)


def stack(model: nn.Module, past: Sequence[Factors], learn_magnitudes: bool) -> None:
    """Stack frozen past factors, oldest first, upon the live ones of a peft model, in place.

    Args:
        model: a peft model with one LoRA adapter of linear layers.
        past: factors by module as they enter the forward pass (normalised, say), each times the LoRA's scaling;
            empty changes nothing.
        learn_magnitudes: whether each past pair and the current one have a learnt factor, at first 1.

    Raises:
        InputError: the adapter enters an embedding, whose factors can't be computed ones. Without past factors, too:
            a run that can't go on should not begin.
    """
    for name, pair in lora_factors(model).items():
        module: Any = model.get_submodule(name)
        if ADAPTER not in module.lora_A:
            where = f"backbone.lora.targets holds the embedding ({name.rsplit('.', 1)[-1]})"
            raise InputError(f"{where}, whose LoRA can't hold factors of several stages; leave it out")
        if past:
            before_a, before_b = zip(*(_like(pair, factors[name]) for factors in past), strict=True)
            _compute(module.lora_A[ADAPTER], _Stacked(before_a, 0))
            _compute(module.lora_B[ADAPTER], _Stacked(before_b, 1))
            if learn_magnitudes:
                _compute(module.lora_B[ADAPTER], _Magnitudes([*before_b, pair[1]]))


def begin_upon(start: AdapterStart, past: Sequence[Factors], learn_magnitudes: bool = False) -> nn.Module:
    """Return the backbone with a fresh pair upon past ones (see `stack`); vocabulary rows go on as they are.

    Raises:
        InputError: the adapter enters an embedding.
    """
    model = fresh_adapter(start)
    stack(model, past, learn_magnitudes)
    if start.past:
        _continue_rows(model, start.past[-1])
    return model


def summed(start: AdapterStart, which: Literal["all", "latest"]) -> list[Factors]:
    """Return the own pairs of those earlier stages that a stage sums up, oldest first."""
    return [own_factors(artifact) for artifact in (start.past if which == "all" else start.past[-1:])]


def _like(own: Iterable[Tensor], past: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return past factors in the precision and on the device of live ones."""
    return tuple(before.to(now) for before, now in zip(past, own, strict=True))


def _compute(layer: nn.Module, how: nn.Module) -> None:
    """Let a layer's weight be computed from what it was; its shape may change."""
    parametrize.register_parametrization(layer, "weight", how, unsafe=True)


def save_stacked(model: nn.Module, folder: Path) -> None:
    """Write all factors as one adapter in PEFT format, its rank the sum of theirs, its scaling the same."""
    settings = model.peft_config[ADAPTER].to_dict()  # type: ignore[union-attr, index]
    plain = {name: tensor for name, tensor in model.state_dict().items() if _COMPUTED not in name}
    rank = settings["r"]
    for name, layers in _stacked(model).items():
        plain |= {f"{name}.{kind}.{ADAPTER}.weight": layer.weight for kind, layer in layers.items()}
        rank = len(layers["lora_A"].weight)
    learnt = get_peft_model_state_dict(model, plain, save_embedding_layers=False)
    alpha = settings["lora_alpha"] * (rank / settings["r"])
    write_adapter(folder, learnt, {**settings, "r": rank, "lora_alpha": alpha})


def own_state(model: nn.Module) -> State:
    """Return what the stage itself trained, apart from what is stacked upon it: factors and magnitudes by module.

    Empty where nothing is stacked: then the adapter is all there is.
    """
    state: State = {}
    factors = lora_factors(model)
    for name, layers in _stacked(model).items():
        state |= {name + FACTOR_A: factors[name][0], name + FACTOR_B: factors[name][1]}
        for step in layers["lora_B"].parametrizations["weight"]:
            if isinstance(step, _Magnitudes):
                state[name + MAGNITUDES] = step.magnitudes
    return state


def _stacked(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the LoRA layers that past factors are stacked on, by kind of factor, by module name."""
    found: dict[str, dict[str, Any]] = {}
    for name in lora_factors(model):
        module: Any = model.get_submodule(name)
        layers = {kind: getattr(module, kind)[ADAPTER] for kind in ("lora_A", "lora_B")}
        if parametrize.is_parametrized(layers["lora_A"], "weight"):
            found[name] = layers
    return found


def _continue_rows(model: nn.Module, previous: Artifact) -> None:
    """Let the vocabulary rows that train beside the factors go on from where a stage left them."""
    path = previous.folder / ADAPTER_FOLDER / "adapter_model.safetensors"
    with blaming(path):
        saved = load_file(path)
    rows = {name: tensor for name, tensor in saved.items() if ".lora_" not in name}
    if rows:
        set_peft_model_state_dict(model, rows)


@torch.no_grad()
def inherit(model: nn.Module, factors: Factors) -> None:
    """Let the live factors begin as copies of a stage's."""
    for name, pair in lora_factors(model).items():
        for own, before in zip(pair, factors[name], strict=True):
            own.copy_(before)
