"""Factors are held where examples of earlier stages depend on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.errors import InputError
from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart, Step
from peso_cli.methods.settings import Reduction, Schedule, Strength, reduced, scheduled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=STRICT)
class EWC:
    """Elastic weight consolidation: strength / 2 x sum of F (theta - anchor)^2 over all numbers of the LoRA factors.

    When a stage begins, the Fisher information F of the stage before is taken over a sample of its training examples,
    at the factors as they stand, which are its anchor. Kirkpatrick et al. (2017, arXiv 1612.00796) keep one F and one
    anchor for each past stage and add their penalties up; online EWC (Schwarz et al. 2018, arXiv 1805.06370) keeps one
    F <- decay F + F of the stage before, anchored at the latest factors. Vocabulary rows that train aren't held.

    Attributes:
        strength: the papers' lambda.
        reduction: `sum` over modules as in the papers, or divided by their number (`mean`).
        schedule: how the strength goes over the stage.
        online: one running F, or one for each past stage.
        decay: the running F's, the paper's gamma; without effect unless `online`.
        fisher_examples: most examples of a stage whose gradients are taken.
    """

    strength: Strength
    reduction: Reduction
    schedule: Schedule
    online: bool
    decay: Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
    fisher_examples: Annotated[int, Field(strict=True, ge=1)]
    name: Literal["ewc"] = "ewc"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take the Fisher information of the stage before and add it to what that stage has handed on."""
        from peso_cli.methods.fisher import Held, as_state, fisher, of_state, quadratic, trained_factors

        start.require_factors()
        if start.data is None:
            raise InputError("there are no examples of the stage before to take the Fisher information of")
        if not self.strength:
            return None
        factors = trained_factors(start.factors)
        found = fisher(start.model, factors, start.data.examples(start.stage - 1, self.fisher_examples))
        held = of_state(start.state)
        if self.online:
            for earlier in held.values():
                found = {name: self.decay * earlier.fisher[name].to(f.device) + f for name, f in found.items()}
            held = {}
        held[start.stage - 1] = Held(found, {name: factor.detach().clone() for name, factor in factors.items()})
        parabola = quadratic(list(held.values()), factors)
        strength = reduced(self.strength, self.reduction, len(start.factors))

        def penalty(step: Step) -> Tensor:
            return strength * scheduled(self.schedule, step.progress) * parabola()

        return Penalty(penalty, as_state(held))
