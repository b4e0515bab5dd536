"""One optimiser step's mathematics: the loss of a batch, and how hard the penalty pulls against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from peso_cli.methods.regularizers import Penalty
from peso_cli.training.packing import Batch


def label_loss(model: nn.Module, batch: Batch, temperature: float) -> Tensor:
    """Return the summed cross-entropy of a batch's labels, logits divided by `temperature`, in float32.

    Hidden states are gathered at the labels before the head, so that no other position costs a row of logits.
    """
    device = next(model.parameters()).device
    tokens, at, labels = (torch.from_numpy(x).to(device) for x in (batch.tokens, batch.at, batch.labels))
    hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state  # type: ignore[operator]
    logits = model.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, at))  # type: ignore[operator]
    return functional.cross_entropy(logits.float() / temperature, labels, reduction="sum")


def norm(tensors: Iterable[Tensor | None]) -> float:
    """Return the Euclidean norm over several tensors together; None counts as zero."""
    present = [t for t in tensors if t is not None]
    return float(torch.nn.utils.get_total_norm(present)) if present else 0.0


@dataclass(frozen=True)
class Pull:
    """How hard the penalty pulls: its value (strength included) and both gradients' norms over the factors."""

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


def add_penalty(penalty: Penalty, factors: Sequence[Tensor]) -> Pull:
    """Add the penalty's gradient to the cross-entropy's, which the factors already hold.

    The two are kept apart until here so that users see whether their regularizer does anything.
    """
    before = norm(f.grad for f in factors)
    value = penalty()
    gradients = torch.autograd.grad(value, factors)
    for factor, gradient in zip(factors, gradients, strict=True):
        factor.grad = gradient if factor.grad is None else factor.grad.add_(gradient)
    return Pull(float(value.detach()), norm(gradients), before)
