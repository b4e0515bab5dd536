"""The outputs of the LoRA modules are held, not their factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli import processes
from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart, Step
from peso_cli.methods.settings import Reduction, Schedule, Strength, reduced, scheduled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=STRICT)
class OutputKL:
    """KL(softmax(B A x) || softmax(B' A' x)) of each LoRA module, the output-space variant in PESO (arXiv 2510.25093).

    x is what the module reads in the training passes of the step, a constant: the penalty pulls at the module's own
    factors, not at those before it. The outputs carry the LoRA's scaling; A' and B' are the factors that the stage
    before left, or the present ones where none did. Of factors stacked upon those of other stages just the stage's own
    are held. A token that several examples share is read once and counts once (in each of several processes); where
    rows are padded, padding counts.

    Attributes:
        strength: times the mean over the tokens of the step.
        reduction: `mean` or `sum` over modules.
        schedule: how the strength goes over the stage.
    """

    strength: Strength
    reduction: Reduction
    schedule: Schedule
    name: Literal["output_kl"] = "output_kl"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Watch the inputs of all LoRA modules from now on."""
        import torch

        from peso_cli.methods.gradients import with_gradients
        from peso_cli.methods.outputs import watch_outputs

        start.require_factors()
        if not self.strength:
            return None
        watched = watch_outputs(start.model, start.factors, start.past[-1] if start.past else start.factors)
        members = [factor for pair in start.factors.values() for factor in pair]
        strength = reduced(self.strength, self.reduction, len(watched))

        def penalty(step: Step) -> Tensor:
            weight = strength * scheduled(self.schedule, step.progress)
            counts = processes.totals([module.tokens for module in watched])
            means = [module.take(tokens) for module, tokens in zip(watched, counts, strict=True)]
            value = torch.stack([mean for mean, _, _ in means]).sum()
            return with_gradients(weight * value, members, [weight * g for _, *pair in means for g in pair])

        return Penalty(penalty, of_data=True)
