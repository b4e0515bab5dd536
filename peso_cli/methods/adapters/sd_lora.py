"""A LoRA adapter beside the frozen directions of earlier stages, each with a magnitude that is learnt anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, AdapterStart, State

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class SDLoRA:
    """W0 + s (sum over past stages of m_i Bhat_i Ahat_i + m B A): SD-LoRA (arXiv 2501.13198) as PESO's baseline.

    s is the LoRA's scaling, and a hat says that a factor is divided by its own Frobenius norm. The current A and B and
    all magnitudes train, these from 1 in every stage; dropout acts on what enters all pairs.

    Attributes:
        past: which earlier stages' own pairs are summed: `all`, or the `latest` one.
        inherit: whether the current pair starts as a copy of the latest stage's own, or anew (A random, B zero).
        reference_scaling: whether scaling compounds as in the released code: of P summed past pairs, pair i (from 0)
            is multiplied by s^(P - i) in place of s.
    """

    past: Literal["all", "latest"]
    inherit: bool
    reference_scaling: bool
    name: Literal["sd_lora"] = "sd_lora"
    trains: ClassVar[bool] = True

    def begin(self, start: AdapterStart) -> nn.Module:
        """Start a pair upon the past ones; a plain LoRA where there are none. Vocabulary rows go on as they are.

        Raises:
            InputError: the adapter enters an embedding.
        """
        from peso_cli.methods.stacking import begin_upon, inherit, normalised, summed

        past = summed(start, self.past)
        compounded = start.lora["lora_alpha"] / start.lora["r"] if self.reference_scaling else 1.0
        times = [compounded**later for later in reversed(range(len(past)))]
        directions = [normalised(factors, times=n) for factors, n in zip(past, times, strict=True)]
        model = begin_upon(start, directions, learn_magnitudes=True)
        if past and self.inherit:
            inherit(model, past[-1])
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write all pairs as one adapter in PEFT format, magnitudes multiplied in."""
        from peso_cli.methods.stacking import save_stacked

        save_stacked(model, folder)

    def state(self, model: nn.Module) -> State:
        """Return the current pair, which the adapter holds only together with the past ones, and the magnitudes."""
        from peso_cli.methods.stacking import own_state

        return own_state(model)
