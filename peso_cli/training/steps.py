"""One optimiser step's mathematics: the loss of a batch, and how hard the penalty pulls against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from peso_cli import processes
from peso_cli.backbones.attention import decoder_states
from peso_cli.backbones.head import summed_cross_entropy
from peso_cli.methods.parts import Penalty, Step
from peso_cli.training.layouts import Batch
from peso_cli.training.sequences import Index


class OwnLoss(Protocol):
    """A batch of a model that is no language model; it knows its loss."""

    @property
    def mass(self) -> float:
        """What a mean over the batch divides by."""

    @property
    def labels(self) -> Index:
        """(n,) what is to be predicted."""

    def loss(self, model: nn.Module, temperature: float) -> Tensor:
        """Return the sum of the losses."""


def label_loss(model: nn.Module, batch: Batch | OwnLoss, temperature: float) -> Tensor:
    """Return the sum of weight x cross-entropy of a batch's labels, logits divided by `temperature`, in float32.

    The head sees hidden states at the labels only, so that no other position costs a row of logits. A batch that has a
    loss of its own is asked for that.
    """
    if not isinstance(batch, Batch):
        return batch.loss(model, temperature)
    hidden = states_of(model, batch, batch.at)
    labels = torch.from_numpy(batch.labels).to(hidden.device)
    weights = None if batch.weights is None else torch.from_numpy(batch.weights).to(hidden.device)
    return summed_cross_entropy(model, hidden, labels, temperature, weights)


def states_of(model: nn.Module, batch: Batch, at: Index | None) -> Tensor:
    """Return the (n, hidden) last hidden states of a batch at flat places, or at all of them, in order, for None."""
    device = next(model.parameters()).device
    tokens = torch.from_numpy(batch.tokens).to(device)
    positions = None if batch.positions is None else torch.from_numpy(batch.positions).to(device)
    attend = None if batch.grove is None else batch.grove.attend(device)
    read = None if at is None else torch.from_numpy(at).to(device)
    return decoder_states(model, tokens, positions, attend, read)


def norm(tensors: Iterable[Tensor | None]) -> float:
    """Return the Euclidean norm over several tensors together; None counts as zero."""
    present = [t for t in tensors if t is not None]
    each = torch._foreach_norm(present, dtype=torch.float32) if present else [torch.zeros(())]
    return float(torch.linalg.vector_norm(torch.stack(list(each))))


def add_up_gradients(parameters: Sequence[Tensor]) -> None:
    """Give parameters the sum of their gradients over all processes."""
    for parameter, gradient in zip(parameters, processes.summed([p.grad for p in parameters], parameters), strict=True):
        parameter.grad = gradient


@dataclass(frozen=True)
class Pull:
    """How hard the penalty pulls: its value (strength included) and both gradients' norms over all that trains."""

    penalty: float
    penalty_gradient: float
    loss_gradient: float

    def shares(self, loss: float) -> dict[str, float]:
        """Put the penalty in proportion to a loss: its share of the sum, and its gradient against the loss's."""
        return {
            "penalty": self.penalty,
            "penalty_share": self.penalty / max(loss + self.penalty, 1e-30),
            "penalty_gradient_ratio": self.penalty_gradient / max(self.loss_gradient, 1e-30),
        }


def add_penalty(penalty: Penalty, parameters: Sequence[Tensor], step: Step) -> Pull:
    """Add the penalty's gradient to the cross-entropy's, which the parameters already hold.

    The two are kept apart until here so that users see whether their regularizer does anything. The cross-entropy's is
    measured over all parameters: those that a penalty pulls at may, as A beside a fresh B, have none of it at first.
    """
    value, found = _of_all_processes(penalty, parameters, step)
    held = [(p, gradient) for p, gradient in zip(parameters, found, strict=True) if gradient is not None]
    pull = Pull(value, norm(gradient for _, gradient in held), norm(p.grad for p in parameters))
    before = [torch.zeros_like(p) if p.grad is None else p.grad for p, _ in held]
    torch._foreach_add_(before, [gradient for _, gradient in held])
    for (parameter, _), gradient in zip(held, before, strict=True):
        parameter.grad = gradient
    return pull


def _of_all_processes(
    penalty: Penalty, parameters: Sequence[Tensor], step: Step
) -> tuple[float, Sequence[Tensor | None]]:
    """Return a penalty's value and gradients, the same in all processes to the last bit."""
    value = penalty.value(step)
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    if processes.count() == 1:
        return float(value.detach()), found
    share = 1.0 if penalty.of_data else 1 / processes.count()
    (whole,) = processes.totals([share * float(value.detach())])
    return whole, processes.summed([None if g is None else share * g for g in found], parameters)
