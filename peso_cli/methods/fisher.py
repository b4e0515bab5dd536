"""Which LoRA factors examples depend on (the diagonal of the Fisher information), and what it costs to move them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from peso_cli.methods.gradients import without_dropout
from peso_cli.methods.lora import FACTOR_A, FACTOR_B
from peso_cli.methods.outputs import lora_layer
from peso_cli.methods.parts import Factors, State
from peso_cli.training.steps import states_of

if TYPE_CHECKING:
    from peso_cli.training.layouts import Batch

Named = Mapping[str, Tensor]
"""One tensor for each factor, by the module's name and `.A` or `.B`."""


def trained_factors(factors: Factors) -> dict[str, Tensor]:
    """Return the factors that train, each by a name of its own."""
    named = {m + end: f for m, pair in factors.items() for end, f in zip((FACTOR_A, FACTOR_B), pair, strict=True)}
    return {name: factor for name, factor in named.items() if factor.requires_grad}


def fisher(model: nn.Module, factors: Named, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return the empirical Fisher information of factors, in float32.

    That is the mean over examples of the squared gradient of an example's log-likelihood, the labels being those of
    the data (Kirkpatrick et al. 2017 draw them from the model in theory and take the data's in practice). An example's
    log-likelihood is summed over its labels; logits aren't divided by a temperature. One pass forwards and one back
    for each batch; dropout is off, and neither `.grad` nor the state of random numbers changes.

    Args:
        model: the model that stands where the Fisher information is asked for.
        factors: as `trained_factors` names them.
        batches: one example in each padded row.

    Raises:
        InputError: the embedding has a LoRA.
    """
    squares = {name: torch.zeros_like(f, dtype=torch.float64, requires_grad=False) for name, f in factors.items()}
    examples = 0
    with without_dropout(model), _adding_squares(model, squares):
        for batch in batches:
            loss = _negative_log_likelihood(model, batch)
            torch.autograd.grad(loss, list(factors.values()), allow_unused=True)
            examples += len(batch.tokens)
    return {name: (total / max(1, examples)).float() for name, total in squares.items()}


def _negative_log_likelihood(model: nn.Module, batch: Batch) -> Tensor:
    """Return the sum over a batch's labels, through the head's own module and with an example a row, as hooks need."""
    everywhere = states_of(model, batch, None)
    at, labels = (torch.from_numpy(x).to(everywhere.device) for x in (batch.at, batch.labels))
    states = everywhere.index_select(0, at).view(len(batch.tokens), -1, everywhere.shape[-1])
    logits = model.get_output_embeddings()(states)  # type: ignore[operator]
    return functional.cross_entropy(logits.flatten(0, 1).float(), labels, reduction="sum")


@contextmanager
def _adding_squares(model: nn.Module, squares: Named) -> Iterator[None]:
    """While it lasts, backward passes add each row's squared gradients to `squares`."""
    hooks = []
    for name, total in squares.items():
        module, _, letter = name.rpartition(".")
        layer = lora_layer(model, module, f"lora_{letter}")
        hooks.append(layer.register_forward_hook(_Squares(total, _to_own(layer))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, eq=False)
class _Squares:
    """A forward hook on a linear layer that lets the backward pass add squared gradients, row by row, to `total`."""

    total: Tensor
    to_own: Callable[[Tensor], Tensor]

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        read = inputs[0].detach()
        output.register_hook(lambda gradient: self._add(read, gradient))  # type: ignore[no-untyped-call]

    def _add(self, read: Tensor, gradient: Tensor) -> None:
        """Take (rows, length, in) inputs and (rows, length, out) gradients of the outputs."""
        by_row = torch.einsum("bti,bto->boi", read.float(), gradient.float())
        self.total.add_(self.to_own(by_row).square().sum(0))


def _to_own(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what turns (rows, ...) gradients of a layer's weight into those of the factor it is computed from."""
    if not parametrize.is_parametrized(layer, "weight"):
        return lambda by_row: by_row
    steps: Any = layer.parametrizations["weight"]  # type: ignore[index]

    def computed(own: Tensor) -> Tensor:
        for step in steps:
            own = step(own)
        return own

    back: Any = torch.func.vjp(computed, steps.original.detach())[1]
    return lambda by_row: torch.func.vmap(back)(by_row)[0]


@dataclass(frozen=True, eq=False)
class Held:
    """Where the factors stood after a stage, and how much its examples depend on each of their numbers."""

    fisher: Named
    anchor: Named


def as_state(held: Mapping[int, Held]) -> State:
    """Return what is held of stages as tensors `fisher.<stage>.<factor>` and `anchor.<stage>.<factor>`."""
    return {
        f"{kind}.{stage}.{name}": tensor
        for stage, one in held.items()
        for kind, named in (("fisher", one.fisher), ("anchor", one.anchor))
        for name, tensor in named.items()
    }


def of_state(state: Named) -> dict[int, Held]:
    """Return what such tensors hold, by stage, the oldest first."""
    found: dict[int, dict[str, dict[str, Tensor]]] = {}
    for key, tensor in state.items():
        kind, stage, name = key.split(".", 2)
        found.setdefault(int(stage), {"fisher": {}, "anchor": {}})[kind][name] = tensor
    return {stage: Held(**found[stage]) for stage in sorted(found)}


def quadratic(held: Sequence[Held], factors: Named) -> Callable[[], Tensor]:
    """Return what gives the present sum over stages of F (theta - anchor)^2 / 2, in float64.

    Sums of parabolas are one parabola, F the sum and the centre the weighted mean of theirs, and a constant: many
    stages cost a step no more than one does.
    """
    members = list(factors.values())
    latest = _flat(held[-1].anchor, factors)
    away = [_flat(one.anchor, factors) - latest for one in held]
    weights = [_flat(one.fisher, factors) for one in held]
    weight = torch.stack(weights).sum(0)
    shift = sum(w * d for w, d in zip(weights, away, strict=True)) / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    constant = sum(w @ (d - shift).square() for w, d in zip(weights, away, strict=True))
    centre = latest + shift

    def value() -> Tensor:
        now = torch.cat([member.reshape(-1) for member in members])
        return 0.5 * (weight @ (now.double() - centre).square() + constant)

    return value


def _flat(named: Named, factors: Named) -> Tensor:
    """Return what is named like factors as one row in float64, in the factors' order and on their device."""
    return torch.cat([named[name].to(factor.device).double().reshape(-1) for name, factor in factors.items()])
