"""Searching with Optuna: which values a trial takes, and which trials aren't trained to the end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.fingerprint import digest
from peso_cli.config.types import STRICT, Natural, Positive

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

_HALVING = 2
"""Hyperband: one of so many trials goes on to the next rung. There are few stages, so that it is the least possible."""


@dataclass(frozen=True, config=STRICT)
class Optuna:
    """A search by one of Optuna's samplers.

    Attributes:
        name: `tpe` or `random`.
        trials: how many there are of each dataset, over all calls.
        objectives: figures of validation users, or costs; a leading minus means the less, the better.
        seed: of what is drawn.
        batch: trials that are chosen together, knowing the results of all batches before.
        random: trials that are drawn at random before the sampler learns from them; None: all.
        prune: whether trials may end after a stage.
        pruner: which of them do: `median` or `hyperband` (Li et al. 2018).
        unpruned: trials that must have been trained to the end before `median` ends one.
        skip_failed: whether to go on without trials whose training fails.
    """

    name: Literal["tpe", "random"]
    trials: Positive
    objectives: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: Natural
    batch: Positive
    random: Natural | None
    prune: bool
    pruner: Literal["median", "hyperband"]
    unpruned: Natural
    skip_failed: bool

    @property
    def figures(self) -> tuple[str, ...]:
        """The objectives without their signs."""
        return tuple(objective.removeprefix("-") for objective in self.objectives)

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Which way each objective is better, as Optuna has it."""
        return ["minimize" if objective.startswith("-") else "maximize" for objective in self.objectives]

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that shape the trials; how many there are, and what becomes of failures, can change later."""
        settings = dataclasses.asdict(self)
        return {key: value for key, value in settings.items() if key not in ("trials", "skip_failed")}

    def make_sampler(self, number: int) -> BaseSampler:
        """Return what draws a trial's values; it depends on the trial's number, not on what this process did before."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = int(digest([self.seed, number])[:8], 16)
        return RandomSampler(seed) if self.random is None else TPESampler(n_startup_trials=self.random, seed=seed)

    def make_pruner(self, steps: int) -> BasePruner:
        """Return what decides, after each but the last of `steps` stages, whether a trial ends."""
        from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

        if not self.prune:
            return NopPruner()
        if self.pruner == "median":
            return MedianPruner(n_startup_trials=self.unpruned)
        return HyperbandPruner(min_resource=1, max_resource=steps, reduction_factor=_HALVING)
