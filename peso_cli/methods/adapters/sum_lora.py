"""A LoRA adapter beside the frozen, normalised ones of earlier stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, AdapterStart, State

if TYPE_CHECKING:
    from torch import nn

_SMOOTHING = 1e-8
"""Added to the norms of past factors, as in the released code."""


@dataclass(frozen=True, config=STRICT)
class SumLoRA:
    """W0 + s (sum over past stages of Bhat_i Ahat_i + B A): PESO's cumulative baseline (arXiv 2510.25093).

    s is the LoRA's scaling, and a hat says that a factor is divided by its own Frobenius norm. Only the current A and B
    train; dropout acts on what enters all pairs.

    Attributes:
        past: which earlier stages' own pairs are summed: `all`, or the `latest` one.
        inherit: whether the current pair starts as a copy of the latest stage's own, or anew (A random, B zero).
    """

    past: Literal["all", "latest"]
    inherit: bool
    name: Literal["sum_lora"] = "sum_lora"
    trains: ClassVar[bool] = True

    def begin(self, start: AdapterStart) -> nn.Module:
        """Start a pair upon the past ones; a plain LoRA where there are none. Vocabulary rows go on as they are.

        Raises:
            InputError: the adapter enters an embedding.
        """
        from peso_cli.methods.stacking import begin_upon, inherit, normalised, summed

        past = summed(start, self.past)
        model = begin_upon(start, [normalised(factors, _SMOOTHING) for factors in past])
        if past and self.inherit:
            inherit(model, past[-1])
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write all pairs as one adapter in PEFT format."""
        from peso_cli.methods.stacking import save_stacked

        save_stacked(model, folder)

    def state(self, model: nn.Module) -> State:
        """Return the current pair, which the adapter holds only together with the past ones."""
        from peso_cli.methods.stacking import own_state

        return own_state(model)
