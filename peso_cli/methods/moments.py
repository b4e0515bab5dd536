"""Second moments of what a model's modules read on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from peso_cli.methods.gradients import without_dropout
from peso_cli.methods.parts import Factors
from peso_cli.training.steps import states_of

if TYPE_CHECKING:
    from peso_cli.training.layouts import Batch


@dataclass(eq=False)
class _Moment:
    """The sum of x x^T over inputs x, (in, in) in float64, and how many there were."""

    total: Tensor
    inputs: int = 0

    def add(self, read: Tensor) -> None:
        """Add (inputs, in) inputs."""
        exact = read.double()
        self.total.addmm_(exact.mT, exact)
        self.inputs += len(read)

    def at(self, places: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """Return a forward pre-hook that adds a module's inputs at flat places of their (rows, length)."""
        return lambda module, inputs: self.add(inputs[0].flatten(0, 1).index_select(0, places))


@torch.no_grad()
def second_moments(model: nn.Module, factors: Factors, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return E[x x^T], (in, in) in float64, of what each module reads, the mean over tokens; dropout is off.

    Padding doesn't count. The head reads only those states that predict a label, each as often as it does so. A module
    that reads nothing has zeros.

    Args:
        model: a backbone with a LoRA.
        factors: A and B of the modules, all of them linear layers, by their names.
        batches: whose tokens go through the model.
    """
    moments = {name: _Moment(_square(a)) for name, (a, _) in factors.items()}
    with without_dropout(model):
        for batch in batches:
            _add(model, moments, batch)
    return {name: moment.total / max(1, moment.inputs) for name, moment in moments.items()}


def _square(a: Tensor) -> Tensor:
    """Return zeros (in, in) for an A (rank, in)."""
    return torch.zeros(a.shape[1], a.shape[1], dtype=torch.float64, device=a.device)


def _add(model: nn.Module, moments: dict[str, _Moment], batch: Batch) -> None:
    """Add what modules read while one batch goes through the decoder, and what the head would read then."""
    device = next(model.parameters()).device
    at, places = (torch.from_numpy(x).to(device) for x in (batch.at, _filled(batch)))
    layers = {name: model.get_submodule(name) for name in moments}
    hooks = [layer.register_forward_pre_hook(moments[name].at(places)) for name, layer in layers.items()]
    try:
        states = states_of(model, batch, None)
    finally:
        for hook in hooks:
            hook.remove()
    head = model.get_output_embeddings()  # type: ignore[operator]
    for name, layer in layers.items():
        if layer is head:
            moments[name].add(states.index_select(0, at))


def _filled(batch: Batch) -> NDArray[np.intp]:
    """Return the flat places of a batch's rows that aren't padding: a row's last label stands on its last token."""
    rows, length = batch.tokens.shape
    last = np.full(rows, -1)
    np.maximum.at(last, batch.at // length, batch.at % length)
    return np.flatnonzero(np.arange(length) <= last[:, None])
