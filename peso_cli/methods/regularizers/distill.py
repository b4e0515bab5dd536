"""The model's answers are held to those that it gave before the stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty, RegularizerStart, Step
from peso_cli.methods.settings import Schedule, Strength, scheduled

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, config=STRICT)
class Distill:
    """KL(teacher || model) over the vocabulary where the step's labels are predicted.

    After learning without forgetting (Li and Hoiem 2016, arXiv 1606.09282): the teacher is the model as it stands when
    the stage begins, asked about the new examples. It works with any adapter; where a stage begins with a new adapter,
    the teacher is what lies under it. A step costs about two more passes forwards and one back.

    Attributes:
        strength: times the mean over labels.
        schedule: how the strength goes over the stage.
        temperature: divides both models' logits; the divergence is multiplied by its square (Hinton et al. 2015).
    """

    strength: Strength
    schedule: Schedule
    temperature: Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
    name: Literal["distill"] = "distill"

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Make a teacher of the model as it stands."""
        from peso_cli.methods.distillation import Teacher, distillation

        if not self.strength:
            return None
        teacher = Teacher(start.model)

        def penalty(step: Step) -> Tensor:
            weight = self.strength * scheduled(self.schedule, step.progress)
            return weight * distillation(start.model, teacher, step.batches, self.temperature)

        return Penalty(penalty, of_data=True)
