"""The stage's own data and a few examples of the past."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.methods.buffers import Sampling, buffered
from peso_cli.methods.parts import STRICT, Portion
from peso_cli.methods.weights import Decay, Weight, weight_of

if TYPE_CHECKING:
    from peso_cli.data.examples import Examples


@dataclass(frozen=True, config=STRICT)
class Replay:
    """The stage's own data and `size` examples of the stages before.

    Attributes:
        size: past examples that a stage trains on; all of them where there are no more.
        sampling: `reservoir`, a uniform sample of all past examples, kept as reservoir sampling would keep it;
            `recent`, the last ones; `per_user`, every user's last one, then everyone's second to last, and so on.
        past_weight: factor on the loss of an example of the stage before.
        decay: that factor shrinks so for every stage further back.
    """

    size: Annotated[int, Field(strict=True, ge=1)]
    sampling: Sampling
    past_weight: Weight
    decay: Decay
    name: Literal["replay"] = "replay"

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return all stages up to this one."""
        return tuple(range(1, stage + 1))

    def select(self, stage: int, examples: Callable[[int], Examples], seed: int) -> tuple[Portion, ...]:
        """Return what the buffer holds of each past stage, and all examples of the stage itself."""
        past = [examples(s) for s in self.stages(stage - 1)]
        held = buffered(past, self.size, self.sampling, seed)
        replayed = [
            Portion(found.take(rows), weight_of(stage - s, self.past_weight, self.decay))
            for s, (found, rows) in enumerate(zip(past, held, strict=True), start=1)
        ]
        return (*replayed, Portion(examples(stage)))
