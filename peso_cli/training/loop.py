"""The training loop of one stage: from a model that knows what trains in it to its best state on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from peso_cli import processes
from peso_cli.config.schema import Trainer
from peso_cli.methods.parts import Penalty, Step
from peso_cli.training import checkpoints
from peso_cli.training.checkpoints import Checkpoint, State
from peso_cli.training.divergence import refused_state, refused_step
from peso_cli.training.interrupt import StopSignal
from peso_cli.training.packing import Packer, Plan
from peso_cli.training.sharding import keep_pace
from peso_cli.training.steps import add_penalty, add_up_gradients, label_loss


class Log(Protocol):
    """Where training curves go."""

    @property
    def position(self) -> int:
        """Bytes written so far; a resumed run goes on behind them."""

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Note values at an optimiser step."""


@dataclass(frozen=True, eq=False)
class Job:
    """All that one stage's training needs.

    Attributes:
        model: what `Adapter.begin` returned.
        penalty: strength x regularizer, or None.
        train, valid: packers over the stage's training and validation examples.
        epochs: most epochs of this stage.
        learning_rate: peak learning rate of this stage.
        seed: one seed per stage and run; order and dropout follow from it and the step's number alone.
        sharded: whether other processes need this one's part of the weights in each of their passes.
        checkpoint: where an unfinished stage is kept.
        resume: what was found there, or None to begin anew.
        tick: called with (steps done, steps planned, note) for a progress display.
    """

    model: nn.Module
    penalty: Penalty | None
    train: Packer
    valid: Packer
    trainer: Trainer
    epochs: int
    learning_rate: float
    seed: int
    sharded: bool
    checkpoint: Path
    resume: Checkpoint | None
    log: Log
    accelerator: Accelerator
    tick: Callable[[int, int, str], None]


@dataclass
class Progress:
    """Where training stands; the JSON part of a checkpoint.

    Attributes:
        epoch: whole epochs done.
        step_in_epoch: optimiser steps done in the epoch under way.
        step: optimiser steps done in all.
        sums: what the epoch under way has added up so far, for its means.
        best_loss: lowest validation cross-entropy so far, and
        best_epoch: the number of epochs after which it was seen (0: before any training).
        history: one row per epoch, row 0 before any training.
        log_position: bytes of the log that belong to the steps done.
        trained_parameters: how many numbers train.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    log_position: int = 0
    trained_parameters: int = 0


class _Run:
    """One stage under way: the job and everything that changes while it trains."""

    def __init__(self, job: Job) -> None:
        self.job, self.trainer = job, job.trainer
        self.parameters = list(checkpoints.trainable(job.model).values())
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=job.learning_rate, weight_decay=self.trainer.weight_decay
        )
        per_epoch = math.ceil(len(job.train.plan((job.seed, 0))) / self.trainer.accumulation)
        self.steps = self.job.epochs * per_epoch
        self.progress = Progress(trained_parameters=sum(p.numel() for p in self.parameters))
        self.best = checkpoints.copy_state(job.model)
        self.saved = time.monotonic()
        if job.resume is not None:
            self._restore(job.resume)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.progress = Progress(**checkpoint.progress)
        checkpoints.restore_state(self.job.model, checkpoint.parts["model"])
        checkpoints.restore_optimiser(self.optimiser, self.job.model, checkpoint.parts.get("optimiser", {}))
        self.best = checkpoint.parts["best"]

    def save(self) -> None:
        """Write a checkpoint, if this is the first process; one of a finite state is never replaced by another's."""
        if not processes.first() or not checkpoints.is_finite(self.parameters):
            return
        self.progress.log_position = self.job.log.position
        parts: dict[str, State] = {
            "model": checkpoints.copy_state(self.job.model),
            "optimiser": checkpoints.optimiser_state(self.optimiser, self.job.model),
            "best": self.best,
        }
        checkpoints.save_checkpoint(self.job.checkpoint, Checkpoint(parts, asdict(self.progress)))
        self.saved = time.monotonic()

    def epoch(self, stop: StopSignal) -> None:
        """Go through the rest of an epoch, then validate and save; if asked to stop, save and end at once."""
        plan = self.job.train.plan((self.job.seed, self.progress.epoch))
        groups = [plan[i : i + self.trainer.accumulation] for i in range(0, len(plan), self.trainer.accumulation)]
        for group in groups[self.progress.step_in_epoch :]:
            self._step_or_save(group)
            (asked,) = processes.totals([stop.requested])
            if asked or self._due:
                self.save()
            if asked:
                raise KeyboardInterrupt
        self.progress.epoch, self.progress.step_in_epoch = self.progress.epoch + 1, 0
        self.validate()
        self.save()

    def _step_or_save(self, group: Plan) -> None:
        try:
            self.step(group)
        except processes.LostProcessError:
            # The step wasn't taken: what is here still is the state after the one before.
            self.save()
            raise

    @property
    def _due(self) -> bool:
        """Whether the steps or the time between two checkpoints have passed."""
        steps, seconds = self.trainer.checkpoint_steps, 60 * self.trainer.checkpoint_minutes
        return time.monotonic() - self.saved > seconds or bool(steps and self.progress.step % steps == 0)

    def step(self, group: Plan) -> None:
        """Take one optimiser step over a group of batches, its loss the weighted mean over all their label tokens.

        Of several processes each takes its share of every batch, and all take the same step.
        """
        job, progress = self.job, self.progress
        job.model.train()
        _seed_step(job.seed, progress.step)
        batches = [job.train.batch(own) for members in group if (own := processes.share(members))]
        loss, (mass,) = 0.0, processes.totals([sum(batch.mass for batch in batches)])
        for batch in batches:
            part = label_loss(job.model, batch, self.trainer.temperature) / mass
            job.accelerator.backward(part)
            loss += float(part.detach())
        if job.sharded:
            spare = job.train.batch(group[0][:1])
            keep_pace(job.model, spare, len(group) - len(batches), backward=True)
        (loss,) = processes.totals([loss])
        add_up_gradients(self.parameters)
        step = Step(batches, progress.step / self.steps)
        pull = add_penalty(job.penalty, self.parameters, step) if job.penalty else None
        size = float(job.accelerator.clip_grad_norm_(self.parameters, self.trainer.clip_norm))
        if refused := refused_step(progress.step + 1, loss, pull, size):
            self.save()
            raise refused
        rate = job.learning_rate * rate_factor(progress.step, self.steps, self.trainer.warmup)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._note({"loss": loss, "gradient_norm": size, **(pull.shares(loss) if pull else {})}, rate)

    def _note(self, values: dict[str, float], rate: float) -> None:
        progress = self.progress
        progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
        self.job.log.curve(progress.step, {**values, "learning_rate": rate})
        for name, value in values.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        progress.sums["steps"] = progress.sums.get("steps", 0) + 1
        self.job.tick(progress.step, self.steps, f"epoch {progress.epoch + 1}, loss {values['loss']:.3f}")

    def validate(self) -> None:
        """Take the validation cross-entropy (without the penalty, so that methods compare); remember the best state."""
        progress, sums = self.progress, self.progress.sums
        loss = validation_loss(self.job.model, self.job.valid, self.trainer.temperature, self.job.sharded)
        if refused := refused_state(progress.epoch, progress.step, loss, self.job.penalty is not None):
            raise refused
        means = {name: value / sums["steps"] for name, value in sums.items() if name != "steps"}
        progress.history.append({"epoch": progress.epoch, "validation_loss": loss, **means})
        self.job.log.curve(progress.step, {"validation_loss": loss})
        progress.sums = {}
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, progress.epoch
            self.best = checkpoints.copy_state(self.job.model)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or validation has stopped improving."""
        progress = self.progress
        return progress.epoch >= self.job.epochs or progress.epoch - progress.best_epoch >= self.trainer.patience


def train(job: Job) -> Progress:
    """Train one stage, going on from `job.resume` if given; the model ends in its best state on validation.

    Raises:
        DivergedError: the loss, the penalty or a gradient is not finite; the step is not taken, and the state before it
            is kept as a checkpoint.
        KeyboardInterrupt: a signal asked to stop; a checkpoint has been written.
    """
    run = _Run(job)
    if not run.progress.history:
        run.validate()
    with StopSignal() as stop:
        while not run.finished:
            run.epoch(stop)
        (asked,) = processes.totals([stop.requested])
        if asked:
            raise KeyboardInterrupt
    checkpoints.restore_state(job.model, run.best)
    return run.progress


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Return what the peak learning rate is multiplied with at a step (0-based): a linear rise, then a cosine to zero.

    It follows from the step's number alone, and is above zero at every step, the first one included.

    Args:
        step: the step's number.
        steps: how many there are in all.
        warmup: share of them over which the rate rises, rounded up to whole steps.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    fallen = (step - rising) / max(1, steps - rising)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))


@torch.no_grad()
def validation_loss(model: nn.Module, packer: Packer, temperature: float, sharded: bool = False) -> float:
    """Return the mean cross-entropy per label token over all examples of a packer, dropout off."""
    model.eval()
    plan = packer.plan(None)
    losses, labels = [0.0] * len(plan), [0.0] * len(plan)
    own = processes.share(range(len(plan)))
    for place in own:
        batch = packer.batch(plan[place])
        losses[place], labels[place] = float(label_loss(model, batch, temperature)), len(batch.labels)
    if sharded:
        keep_pace(model, packer.batch(plan[0]), math.ceil(len(plan) / processes.count()) - len(own), backward=False)
    # Added up batch by batch in any case, so that the number of processes doesn't show in the sum.
    return sum(processes.totals(losses)) / sum(processes.totals(labels))


def _seed_step(seed: int, step: int) -> None:
    """Seed dropout from the step's number alone, so that a resumed run draws what it would have drawn.

    Of several processes each draws for itself.
    """
    of_process = [processes.rank()] if processes.rank() else []
    torch.manual_seed(int(np.random.SeedSequence([seed, step, *of_process]).generate_state(1, np.uint64)[0]))
