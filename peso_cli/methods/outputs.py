"""How far the outputs of LoRA modules have moved from those of earlier factors, on what the modules are given to read.

The divergence and its gradients are found as the inputs come by, in float64, and only sums as large as the factors are
kept: the inputs of a step, let alone the outputs, take far more memory than a model's activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from peso_cli.errors import InputError
from peso_cli.methods.lora import ADAPTER
from peso_cli.methods.parts import Factors

_CHUNK = 1 << 20
"""Most outputs held at once (8 MB in float64)."""

Pair = tuple[Tensor, Tensor]
"""LoRA factors: A of shape (rank, in) and B of shape (out, rank)."""

Sums = tuple[Tensor, Tensor, Tensor]
"""A divergence, and its gradients by A and by B, in float64."""


@torch.no_grad()
def output_kl(inputs: Tensor, now: Pair, before: Pair, scale: float) -> Sums:
    """Return KL(softmax(scale B A x) || softmax of the same by `before`) in nats, summed over x, and its gradients.

    With p and q the two distributions and r = log p - log q, the gradient by the new output is p (r - KL).

    Args:
        inputs: (tokens, in) what the module reads; constants.
        now, before: factors; their ranks may differ.
        scale: the LoRA's scaling.
    """
    (a, b), (old_a, old_b) = ([factor.double() for factor in pair] for pair in (now, before))
    total, of_a, of_b = _zeros(now)
    for part in torch.split(inputs, max(1, _CHUNK // len(b))):
        x = part.double()
        low = x @ a.mT
        log_p = (scale * low @ b.mT).log_softmax(1)
        ratio = log_p - (scale * (x @ old_a.mT) @ old_b.mT).log_softmax(1)
        p = log_p.exp_()
        kl = torch.linalg.vecdot(p, ratio)
        pull = p.mul_(ratio.sub_(kl[:, None])).mul_(scale)
        total += kl.sum()
        of_a.addmm_((pull @ b).mT, x)
        of_b.addmm_(pull.mT, low)
    return total, of_a, of_b


def _zeros(pair: Pair) -> Sums:
    of_a, of_b = (torch.zeros_like(factor, dtype=torch.float64, requires_grad=False) for factor in pair)
    return of_a.new_zeros(()), of_a, of_b


@dataclass(eq=False)
class WatchedModule:
    """A forward hook on a module's `lora_A` that adds up `output_kl` over what it reads in training.

    Attributes:
        now: the module's live factors.
        before: the factors whose outputs they are held to.
        scale: the LoRA's scaling.
        tokens: how many have come by since they were last taken.
    """

    now: Pair
    before: Pair
    scale: float
    tokens: int = field(default=0, init=False)
    _sums: Sums = field(init=False)

    def __post_init__(self) -> None:
        self._sums = _zeros(self.now)

    def __call__(self, down: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Add what passes by; in evaluation mode nothing."""
        if not down.training:
            return
        read = inputs[0].detach().flatten(0, -2)
        for total, part in zip(self._sums, output_kl(read, self.now, self.before, self.scale), strict=True):
            total += part
        self.tokens += len(read)

    def take(self, tokens: float) -> Sums:
        """Return what has been added up since the last call, divided by a number of tokens if that isn't zero."""
        total, of_a, of_b = (part / max(1, tokens) for part in self._sums)
        self.tokens, self._sums = 0, _zeros(self.now)
        return total, of_a, of_b


def watch_outputs(model: nn.Module, factors: Factors, before: Factors) -> Sequence[WatchedModule]:
    """Hook all LoRA modules of a model.

    Args:
        model: a peft model.
        factors: its live factors; `before`: those whose outputs they are held to.

    Raises:
        InputError: the embedding has a LoRA, whose input is no vector.
    """
    found = []
    for name, now in factors.items():
        down = lora_layer(model, name, "lora_A")
        module: Any = model.get_submodule(name)
        old_a, old_b = (old.detach().to(own.device, copy=True) for old, own in zip(before[name], now, strict=True))
        found.append(WatchedModule(now, (old_a, old_b), float(module.scaling[ADAPTER])))
        down.register_forward_hook(found[-1])
    return found


def lora_layer(model: nn.Module, name: str, side: str) -> nn.Module:
    """Return the linear layer `lora_A` or `lora_B` of a target module.

    Raises:
        InputError: the module is an embedding, which has none.
    """
    layers = getattr(model.get_submodule(name), side)
    if ADAPTER not in layers:
        raise InputError(f"backbone.lora.targets: a LoRA on the embedding ({name}) has no vectors to look at")
    layer: nn.Module = layers[ADAPTER]
    return layer
