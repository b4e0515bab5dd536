"""`peso bench train`: shared-prefix training beside one padded sequence per example, on the same examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from peso_cli.bench import plain
from peso_cli.bench.cases import Case, adapted, perturb
from peso_cli.bench.measure import Times, best_of, flops, matrix_rate, peak_memory, side_by_side
from peso_cli.data.examples import Examples
from peso_cli.stages import Display
from peso_cli.training.layouts import Packed
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
    single, prompt = one_by_one(found), case.backbone.prompt
    temperature = case.config.trainer.temperature

    def padded(loss: plain.Loss, size: int) -> Callable[[], float]:
        return lambda: _plain_pass(model, loss, single, case, size)

    few = one_by_one(found.take(np.arange(min(64, len(found)))))

    def tried(loss: plain.Loss) -> int:
        return best_of(_BATCHES, lambda size: lambda: _plain_pass(model, loss, few, case, size))

    full, labels = tried(plain.full_logits), tried(plain.label_logits)
    packer = Packer((shared(found),), Packed(prompt), case.config.trainer.batch_tokens)

    def packed() -> float:
        return _packed_pass(model, packer, temperature)

    ways: dict[str, Callable[[], float]] = {
        f"padded, all logits, batch {full}": padded(plain.full_logits, full),
        f"padded, label logits, batch {labels}": padded(plain.label_logits, labels),
        "peso": packed,
    }
    times = side_by_side(ways, repeats, display.bar("timing"))
    tokens = _tokens(single, packer, case, full, labels)
    return {
        "bench": "train",
        "backbone": case.config.backbone.name,
        "prompt": prompt_name(case),
        "stage": case.stage,
        "vocabulary": case.backbone.vocabulary.size,
        "examples": len(found),
        "batch_tokens": case.config.trainer.batch_tokens,
        "fill": packer.fill,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "ways": {n: _figures(times[n], ways[n], len(found), tokens[i]) for i, n in enumerate(ways)},
        "matrix_rate": matrix_rate(),
        "memory_at_batch": _memory_at(model, single, shared(found), case, full),
        "equal": _compare(model, padded(plain.full_logits, full), packed),
    }


def prompt_name(case: Case) -> str:
    """Return the name of the case's prompt."""
    return case.config.prompt.name


def _whole_users(case: Case, most: int) -> Examples:
    """Return the training examples of a seeded sample of users, `most` or a few more."""
    found = case.sample("train", case.dataset.block(case.stage).current.size * 64)
    users = np.random.default_rng(case.config.seed).permutation(np.unique(found.user))
    counts = np.bincount(found.user, minlength=int(found.user.max()) + 1)[users]
    chosen = users[: int(np.searchsorted(np.cumsum(counts), most)) + 1]
    return found.take(np.flatnonzero(np.isin(found.user, chosen)))


def _plain_pass(model: nn.Module, loss: plain.Loss, examples: Sequences, case: Case, size: int) -> float:
    _use_plain_attention(model)
    model.zero_grad(set_to_none=True)
    total = 0.0
    for batch in plain.padded_batches(examples, case.backbone.prompt, size):
        part = loss(model, batch, case.config.trainer.temperature)
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return total


def _use_plain_attention(model: nn.Module) -> None:
    model.get_decoder().set_attn_implementation("sdpa")  # type: ignore[operator]


def _packed_pass(model: nn.Module, packer: Packer, temperature: float) -> float:
    model.zero_grad(set_to_none=True)
    total = 0.0
    for members in packer.plan((0,)):
        part = label_loss(model, packer.batch(members), temperature)
        part.backward()  # type: ignore[no-untyped-call]
        total += float(part.detach())
    return total


def _tokens(examples: Sequences, packer: Packer, case: Case, full: int, labels: int) -> list[int]:
    """Return how many tokens each way puts through the backbone."""
    padded = [
        sum(batch.tokens.size for batch in plain.padded_batches(examples, case.backbone.prompt, size))
        for size in (full, labels)
    ]
    return [*padded, sum(packer.batch(members).tokens.size for members in packer.plan((0,)))]


def _figures(times: Times, work: Callable[[], Any], examples: int, tokens: int) -> Document:
    operations = flops(work)
    return {
        "seconds": list(times.seconds),
        "milliseconds_per_example": 1e3 * times.median / examples,
        "spread": times.spread,
        "tokens_per_example": tokens / examples,
        "gflop_per_example": operations / examples / 1e9,
        "gflop_per_second": operations / times.median / 1e9,
    }


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

    _use_plain_attention(model)
    return {"batch": size, "plain": peak(plain.full_logits, plain_batch), "peso": peak(label_loss, packed)}


def _rows(sequences: Sequences, rows: Any) -> Sequences:
    return Sequences(sequences.block, sequences.start[rows], sequences.first[rows], sequences.last[rows])


def _compare(model: nn.Module, expected: Callable[[], float], ours: Callable[[], float]) -> Document:
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
