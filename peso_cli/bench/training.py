"""`peso bench train`: shared-prefix training beside one padded sequence per example, on the same examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from peso_cli.bench import plain
from peso_cli.bench.cases import Case, adapted, perturb
from peso_cli.bench.measure import best_of, figures, matrix_rate, peak_memory, side_by_side
from peso_cli.data.examples import Examples
from peso_cli.stages import Display
from peso_cli.training.layouts import Batch, Packed
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import Sequences, one_by_one, shared
from peso_cli.training.steps import label_loss

Document = dict[str, Any]

_BATCHES = (1, 2, 4, 8, 16, 32, 64)


def bench_training(case: Case, most: int, repeats: int, display: Display) -> Document:
    """Measure forward and backward passes over the same examples, dropout off.

    Args:
        case: what is measured; its adapter trains, as in a later stage.
        most: how many examples, those of whole users.
        repeats: how often each way is timed.
        display: shows progress.
    """
    model, found = adapted(case), _whole_users(case, most)
    perturb(model, 0.01, case.config.seed)
    single, prompt, temperature = one_by_one(found), case.backbone.prompt, case.config.trainer.temperature
    few = one_by_one(found.take(np.arange(min(64, len(found)))))
    packer = Packer((shared(found),), Packed(prompt), case.config.trainer.batch_tokens)

    def padded(loss: plain.Loss, examples: Sequences, size: int) -> Way:
        batches = partial(plain.padded_batches, examples, prompt, size)
        return Way(model, loss, batches, temperature, begin=partial(plain.use_plain_attention, model))

    sizes = {
        loss: best_of(_BATCHES, lambda size, loss=loss: padded(loss, few, size))  # type: ignore[misc]
        for loss in (plain.full_logits, plain.label_logits)
    }
    full, labels = sizes.values()
    ways = {
        f"padded, all logits, batch {full}": padded(plain.full_logits, single, full),
        f"padded, label logits, batch {labels}": padded(plain.label_logits, single, labels),
        "peso": Way(model, label_loss, lambda: map(packer.batch, packer.plan((0,))), temperature),
    }
    times = side_by_side(ways, repeats, display.bar("timing"))
    expected, _, ours = ways.values()
    return {
        "bench": "train",
        "backbone": case.config.backbone.name,
        "prompt": case.config.prompt.name,
        "stage": case.stage,
        "vocabulary": case.backbone.vocabulary.size,
        "examples": len(found),
        "batch_tokens": case.config.trainer.batch_tokens,
        "fill": packer.fill,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "ways": {
            name: {
                **figures(times[name], way, "example", len(found)),
                "tokens_per_example": way.tokens / len(found),
            }
            for name, way in ways.items()
        },
        "matrix_rate": matrix_rate(),
        "memory_at_batch": _memory_at(model, single, shared(found), case, full),
        "equal": _compare(model, expected, ours),
    }


@dataclass(frozen=True, eq=False)
class Way:
    """A way to find the loss and the gradients of the same examples; calling it does so and returns the summed loss.

    Attributes:
        model: what trains.
        loss: the summed loss of a batch.
        batches: makes the batches.
        temperature: divides the logits.
        begin: what is to be done before.
    """

    model: nn.Module
    loss: plain.Loss
    batches: Callable[[], Iterable[Batch]]
    temperature: float
    begin: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        """Go through all batches, forward and backward."""
        self.begin()
        self.model.zero_grad(set_to_none=True)
        total = 0.0
        for batch in self.batches():
            part = self.loss(self.model, batch, self.temperature)
            part.backward()  # type: ignore[no-untyped-call]
            total += float(part.detach())
        return total

    @property
    def tokens(self) -> int:
        """How many tokens go through the backbone."""
        return sum(batch.tokens.size for batch in self.batches())


def _whole_users(case: Case, most: int) -> Examples:
    """Return the training examples of a seeded sample of users, `most` or a few more."""
    found = case.sample("train", case.dataset.block(case.stage).current.size * 64)
    users = np.random.default_rng(case.config.seed).permutation(np.unique(found.user))
    counts = np.bincount(found.user, minlength=int(found.user.max()) + 1)[users]
    chosen = users[: int(np.searchsorted(np.cumsum(counts), most)) + 1]
    return found.take(np.flatnonzero(np.isin(found.user, chosen)))


def _memory_at(model: nn.Module, single: Sequences, trees: Sequences, case: Case, size: int) -> Document:
    """Return the peak memory of one batch of as many examples, the longest ones, in the plain way and in ours."""
    order = np.argsort(single.items, kind="stable")[-size:]
    plain_batch = next(plain.padded_batches(_rows(single, order), case.backbone.prompt, size))
    wanted, rows = 0, []
    for row in np.argsort(trees.items, kind="stable")[::-1].tolist():
        if wanted < size:
            rows.append(row)
            wanted += int(trees.targets[row])
    packed = Packed(case.backbone.prompt).batch([(trees, row) for row in rows])
    temperature = case.config.trainer.temperature

    def peak(loss: plain.Loss, batch: Any) -> int | None:
        model.zero_grad(set_to_none=True)
        return peak_memory(lambda: loss(model, batch, temperature).backward())  # type: ignore[no-untyped-call]

    plain.use_plain_attention(model)
    return {"batch": size, "plain": peak(plain.full_logits, plain_batch), "peso": peak(label_loss, packed)}


def _rows(sequences: Sequences, rows: Any) -> Sequences:
    return Sequences(sequences.block, sequences.start[rows], sequences.first[rows], sequences.last[rows])


def _compare(model: nn.Module, expected: Way, ours: Way) -> Document:
    """Compare the loss over all examples and the gradient of every parameter that trains."""
    losses, gradients = [], []
    for work in (expected, ours):
        losses.append(work())
        gradients.append({n: p.grad.double().cpu() for n, p in model.named_parameters() if p.grad is not None})
    cosines = [
        float(torch.cosine_similarity(gradients[0][name].flatten(), gradients[1][name].flatten(), dim=0))
        for name in gradients[0]
    ]
    return {
        "relative_loss_difference": abs(losses[1] - losses[0]) / abs(losses[0]),
        "parameters": len(cosines),
        "same_parameters": gradients[0].keys() == gradients[1].keys(),
        "lowest_gradient_cosine": min(cosines),
    }
