"""A stage as it began: the model with the factors from which its training set out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peso_cli.errors import InputError
from peso_cli.methods.lora import lora_factors, own_factors
from peso_cli.methods.parts import Factors
from peso_cli.stages import Run
from peso_cli.training.stage import StageData, begin_stage


@dataclass(frozen=True, eq=False)
class Beginning:
    """Where a stage set out, and where it arrived.

    Attributes:
        model: the backbone with its adapter as the stage began, in float32 and evaluation mode.
        live: the model's own factors, by module.
        before: copies of them.
        after: the factors that the stage left.
        past: the factors that earlier stages left, oldest first.
        data: training examples of the stages.
    """

    model: nn.Module
    live: Factors
    before: Factors
    after: Factors
    past: Sequence[Factors]
    data: StageData

    @property
    def taken_over(self) -> bool:
        """Whether the stage began with what the stage before left, and not with a fresh adapter."""
        return bool(self.past) and _equal(self.before, self.past[-1])

    @property
    def steps(self) -> list[tuple[Tensor, Tensor]]:
        """Each live factor that trains, with the step from where it began to where the stage left it."""
        return [
            (factor, arrived.to(factor) - factor.detach())
            for name, pair in self.live.items()
            for factor, arrived in zip(pair, self.after[name], strict=True)
            if factor.requires_grad
        ]


def begin_again(run: Run, stage: int) -> Beginning:
    """Bring back the state in which a finished stage began.

    An adapter that goes on from the stage before begins as that one ended. One that begins anew (in stage 2, where
    stage 1 trains the whole backbone, or in every stage) draws from the stage's seed what it drew in training.

    Raises:
        InputError: the stage isn't trained, or its adapter has no LoRA factors.
        RunError: an artifact is damaged.
    """
    *ancestors, artifact = run.require(stage)
    adapter, after = run.parts(stage)[0], own_factors(artifact)
    if not after:
        raise InputError(
            f"stage {stage} of {run.config.method.name} left no LoRA factors (adapter={adapter.name}); "
            "inspect a stage that trains a LoRA adapter"
        )
    begun = begin_stage(run.config, run.dataset, stage, adapter, ancestors)
    model = begun.model.float().eval()
    live = lora_factors(model)
    before = {name: (a.detach().clone(), b.detach().clone()) for name, (a, b) in live.items()}
    return Beginning(model, live, before, after, [_in_order(live, own_factors(a)) for a in begun.past], begun.data)


def _in_order(live: Factors, factors: Factors) -> Factors:
    """Return factors in the order of the live ones."""
    return {name: factors[name] for name in live}


def _equal(one: Factors, other: Factors) -> bool:
    def same(x: Tensor, y: Tensor) -> bool:
        return torch.equal(x.cpu().float(), y.cpu().float())

    return all(same(x, y) for name in one for x, y in zip(one[name], other[name], strict=True))
