"""The adapter of a hybrid, which marks its stages: they train nothing, their parts do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.errors import InputError
from peso_cli.hybrid.settings import LEARNER
from peso_cli.methods.parts import STRICT, State

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, config=STRICT)
class Fused:
    """Nothing trains: a stage chooses how the lists of its parts are fused."""

    name: Literal["fused"] = "fused"
    trains: ClassVar[bool] = False
    learner: ClassVar[str] = LEARNER

    def begin(self, start: Any) -> nn.Module:
        """Refuse: a hybrid has no model of its own."""
        raise InputError("adapter=fused: a hybrid has no model of its own; name one of its parts")

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write nothing."""

    def state(self, model: nn.Module) -> State:
        """Nothing was learnt."""
        return {}
