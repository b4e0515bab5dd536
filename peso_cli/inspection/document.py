"""One stage's inspection as one document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from peso_cli.errors import InputError
from peso_cli.inspection.begin import Beginning, begin_again
from peso_cli.inspection.curvature import SampleLoss
from peso_cli.inspection.metrics import local_form
from peso_cli.inspection.movement import movement
from peso_cli.inspection.support import shares, strongest, summary
from peso_cli.methods.parts import Regularizer
from peso_cli.stages import Run
from peso_cli.training.stage import stage_seed

Tick = Callable[[int, int, str], None]

_TOLERANCE = 1e-2
"""Residual of a direction as a share of its support; the support itself is exact to about the square of that."""

_PRODUCTS = 8
"""Most products for each direction asked for, and for four more."""


def inspect_stage(run: Run, stage: int, examples: int, directions: int, tick: Tick) -> dict[str, Any]:
    """Return what `peso inspect` shows of a finished stage.

    Args:
        run: the configuration.
        stage: the stage.
        examples: most training examples of the stage on which support is taken.
        directions: how many directions of strongest support.
        tick: called with (products done, products at most, note).

    Raises:
        InputError: the stage isn't trained, or its adapter has no LoRA factors.
        RunError: an artifact is damaged.
    """
    beginning = begin_again(run, stage)
    regularizer = run.parts(stage)[1]
    return {
        "folder": str(run.artifact(stage).folder),
        "method": run.config.method.name,
        "stage": stage,
        "since": f"stage {stage - 1}" if beginning.taken_over else "a fresh adapter",
        "regularizer": regularizer.name,
        "movement": movement(beginning.before, beginning.after, regularizer, beginning.past),
        "support": _support(run, stage, beginning, regularizer, examples, directions, tick),
    }


def _support(
    run: Run, stage: int, beginning: Beginning, regularizer: Regularizer, most: int, count: int, tick: Tick
) -> dict[str, Any]:
    factors, steps = zip(*beginning.steps, strict=True)
    loss = _loss(run, stage, beginning, factors, most)
    at_anchor = beginning.taken_over or not beginning.past
    metric, pull = local_form(regularizer, beginning.live, len(beginning.past), at_anchor)
    curvature, moved = metric.curvature(loss.product), metric.displacement(torch.cat([s.flatten() for s in steps]))
    generator = torch.Generator().manual_seed(stage_seed(run.config.seed, stage))
    start = metric.seen(torch.randn(len(moved), generator=generator).to(moved))
    found = strongest(
        curvature, start, count, _TOLERANCE, _PRODUCTS * (count + 4), lambda done, all_: tick(done, all_, "products")
    )
    length = float(moved.double().square().sum())
    rows = shares(found, moved, metric.gradient(loss.gradient()), pull)
    return {
        "examples": loss.examples,
        "labels": loss.labels,
        "metric": "plain" if metric.free is None else "softmax",
        "pull": pull,
        "dimensions": metric.dimensions,
        "products": found.products,
        "largest_residual": float((found.residuals / found.support).max()) if rows else None,
        "support_of_random_direction": found.typical,
        "support_of_movement": float(moved.double() @ curvature(moved).double()) / length if length else None,
        "directions": rows,
        **summary(rows, moved, metric.dimensions),
    }


def _loss(run: Run, stage: int, beginning: Beginning, factors: Sequence[Tensor], most: int) -> SampleLoss:
    batches = list(beginning.data.examples(stage, most))
    if not batches:
        raise InputError(f"stage {stage} of {run.dataset.name} has no training example to take support from")
    return SampleLoss(beginning.model, factors, batches, run.config.trainer.temperature)
