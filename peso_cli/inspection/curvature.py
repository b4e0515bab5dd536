"""Gradient and Gauss-Newton products of a sample's loss by the LoRA factors, never forming a matrix of their size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from peso_cli.training.steps import states_of

if TYPE_CHECKING:
    from peso_cli.training.layouts import Batch


class _Answers(nn.Module):
    """A backbone as a function from a batch to the (labels, vocabulary) logits of its labels, in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        states = states_of(self.model, batch, batch.at)
        logits: Tensor = self.model.get_output_embeddings()(states)  # type: ignore[operator]
        return logits.float()


@dataclass(frozen=True, eq=False)
class SampleLoss:
    """The mean cross-entropy per label token of a sample, logits divided by `temperature`, as training takes it.

    Attributes:
        model: stands where the loss is looked at, in evaluation mode.
        factors: the parameters that the loss is a function of; vectors hold their numbers one behind the other.
        batches: the sample, an example in each padded row.
        temperature: divides the logits.
    """

    model: nn.Module
    factors: Sequence[Tensor]
    batches: Sequence[Batch]
    temperature: float

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return sum(len(batch.tokens) for batch in self.batches)

    @property
    def labels(self) -> int:
        """How many label tokens there are."""
        return sum(len(batch.labels) for batch in self.batches)

    def gradient(self) -> Tensor:
        """Return the (n,) gradient."""

        def residual(logits: Tensor, labels: Tensor, along: None) -> Tensor:
            return logits.softmax(1).scatter_add_(1, labels[:, None], logits.new_full((len(labels), 1), -1.0))

        return self._sum(residual, None) / self.temperature

    def product(self, vector: Tensor) -> Tensor:
        """Return (n,) G v, G the Gauss-Newton matrix E[J^T (diag(p) - p p^T) J], J of the logits by the factors.

        One pass forwards, with the tangents along `vector` beside it, and one back.
        """

        def bent(logits: Tensor, labels: Tensor, along: Tensor) -> Tensor:
            p = logits.softmax(1)
            return p * (along - (p * along).sum(1, keepdim=True))

        return self._sum(bent, vector) / self.temperature**2

    def _sum(self, weigh: Callable[..., Tensor], vector: Tensor | None) -> Tensor:
        """Return the mean over labels of J^T w, w what `weigh` makes of logits, labels and the logits' tangents."""
        total = torch.zeros_like(_flat(self.factors))
        for batch in self.batches:
            logits, along = self._logits(batch, vector)
            labels = torch.from_numpy(batch.labels).to(logits.device)
            weights = weigh(logits.detach() / self.temperature, labels, along)
            total += _flat(torch.autograd.grad(logits, list(self.factors), weights, materialize_grads=True))
        return total / self.labels

    def _logits(self, batch: Batch, vector: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return (labels, vocabulary) logits with a graph and, along a vector, their tangents."""
        answers = _Answers(self.model)
        # Only the plain way of attention has derivatives forwards; fused ones have none.
        with sdpa_kernel(SDPBackend.MATH):
            if vector is None:
                return answers(batch), None
            with forward_ad.dual_level():
                moving = functional_call(answers, self._along(answers, vector), (batch,))
                logits, along = forward_ad.unpack_dual(moving)  # type: ignore[no-untyped-call]
                return logits, torch.zeros_like(logits) if along is None else along.detach().clone()

    def _along(self, answers: nn.Module, vector: Tensor) -> dict[str, Tensor]:
        """Return the factors by their names in a module, each with its part of a vector as its tangent."""
        names = {id(parameter): name for name, parameter in answers.named_parameters()}
        parts = torch.split(vector, [factor.numel() for factor in self.factors])
        return {
            names[id(factor)]: forward_ad.make_dual(factor, part.view_as(factor))  # type: ignore[no-untyped-call]
            for factor, part in zip(self.factors, parts, strict=True)
        }


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
