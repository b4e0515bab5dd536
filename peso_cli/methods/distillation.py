"""What a model answered before: how far its answers are from those of the parameters that it had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peso_cli import processes
from peso_cli.backbones.head import head_of
from peso_cli.methods.gradients import with_gradients, without_dropout
from peso_cli.training.checkpoints import trainable
from peso_cli.training.steps import states_of

if TYPE_CHECKING:
    from peso_cli.training.layouts import Batch

_CHUNK = 1 << 22
"""Most logits of one model held at once (32 MB in float64)."""


class Teacher:
    """A model as it stood when the teacher was made: copies of all that trains in it."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(trainable(model).values())
        self._values = [parameter.detach().clone() for parameter in self.parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model be the teacher for a while, without a graph."""
        self._swap()
        try:
            with torch.no_grad():
                yield
        finally:
            self._swap()

    def _swap(self) -> None:
        live = [parameter.data for parameter in self.parameters]
        for parameter, value in zip(self.parameters, self._values, strict=True):
            parameter.data = value
        self._values = live


def distillation(model: nn.Module, teacher: Teacher, batches: Sequence[Batch], temperature: float) -> Tensor:
    """Return T^2 KL(teacher || model) in nats over the vocabulary, mean over the batches' labels, with a graph.

    With several processes it is this one's part of the mean over the labels of all.

    Both distributions are those of logits / T. The factor T^2 keeps the gradients' size about equal at all
    temperatures (Hinton et al. 2015). Dropout is off in both, so that what is measured is how the parameters differ;
    a student with dropout would be pulled even where it equals its teacher. Gradients are taken batch by batch: no
    more than one batch's graph is held.

    Args:
        model: the student.
        teacher: made from the same model.
        batches: their labels' places are compared; the labels themselves are not looked at.
        temperature: T.
    """
    total, gradients = torch.zeros((), dtype=torch.float64, device=teacher.parameters[0].device), _Gradients(teacher)
    with without_dropout(model):
        for batch in batches:
            total += _add_batch(model, teacher, batch, temperature, gradients)
    labels = max(1, *processes.totals([sum(len(batch.at) for batch in batches)]))
    means = [None if gradient is None else gradient / labels for gradient in gradients.found]
    return with_gradients(total / labels, teacher.parameters, means)


class _Gradients:
    """Gradients by a model's parameters, added up; None for a parameter that nothing has depended on."""

    def __init__(self, teacher: Teacher) -> None:
        self.found: list[Tensor | None] = [None] * len(teacher.parameters)

    def add(self, more: Sequence[Tensor | None]) -> None:
        """Add those of another piece."""
        for place, gradient in enumerate(more):
            own = self.found[place]
            if gradient is not None:
                self.found[place] = gradient if own is None else own.add_(gradient)


def _add_batch(model: nn.Module, teacher: Teacher, batch: Batch, temperature: float, gradients: _Gradients) -> Tensor:
    """Return the sum over a batch's labels and add its gradients; logits exist for a few labels at a time."""
    with teacher.in_place():
        before = states_of(model, batch, batch.at)
    now = states_of(model, batch, batch.at)
    vocabulary: int = model.config.vocab_size  # type: ignore[union-attr, assignment]
    step = max(1, _CHUNK // vocabulary)
    total, pulls = torch.zeros((), dtype=torch.float64, device=now.device), []
    for wanted, states in zip(torch.split(before, step), torch.split(now.detach(), step), strict=True):
        own = states.requires_grad_()
        with teacher.in_place():
            answer = _logits(model, wanted)
        kl = _kl(_logits(model, own), answer, temperature)
        pull, *of_head = torch.autograd.grad(kl, [own, *teacher.parameters], allow_unused=True)
        gradients.add(of_head)
        pulls.append(pull)
        total += kl.detach()
    if now.requires_grad:
        gradients.add(torch.autograd.grad(now, teacher.parameters, torch.cat(pulls), allow_unused=True))
    return total


def _logits(model: nn.Module, states: Tensor) -> Tensor:
    """Return (n, vocabulary) logits; a head in which some rows train is taken apart, not put together anew."""
    head = head_of(model)
    if head is None:
        logits: Tensor = model.get_output_embeddings()(states)  # type: ignore[operator]
        return logits
    plain = torch.cat([states @ block.mT for block in head.blocks], dim=1)
    if head.down is None or head.up is None:
        return plain
    low: Tensor = head.down(states)
    return torch.addmm(plain, low, head.up.mT, alpha=head.scale)


def _kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    apply: Any = _SummedKL.apply
    value: Tensor = apply(student, teacher, temperature)
    return value


class _SummedKL(torch.autograd.Function):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) summed over rows, in float64.

    Its gradient by the student's logits is T (p - q), p the student's and q the teacher's probabilities: zero, to the
    last bit, where both are equal.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        log_p, log_q = ((logits.double() / temperature).log_softmax(1) for logits in (student, teacher))
        q = log_q.exp()
        value: Tensor = torch.linalg.vecdot(q, log_q.sub_(log_p)).sum()
        ctx.save_for_backward(log_p.exp_().sub_(q).mul_(temperature).to(student.dtype))
        return value * (temperature * temperature)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * weight, None, None
