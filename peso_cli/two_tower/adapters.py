"""How the stages of a two-tower model begin: with what the stage before left, anew, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, State
from peso_cli.two_tower.settings import LEARNER

if TYPE_CHECKING:
    from torch import nn

    from peso_cli.two_tower.parts import TowersStart


@dataclass(frozen=True, config=STRICT)
class Inherited:
    """Each stage goes on training the whole model that the stage before left; rows for what is new come behind."""

    name: Literal["towers"] = "towers"
    trains: ClassVar[bool] = True
    learner: ClassVar[str] = LEARNER

    def begin(self, start: TowersStart) -> nn.Module:
        """Put the earlier rows in place of random ones; the backbone's `cold_start` says how new ones begin."""
        from peso_cli.two_tower.weights import inherit

        return inherit(start)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write all weights."""
        _save(model, folder)

    def state(self, model: nn.Module) -> State:
        """The weights are all there is."""
        return {}


@dataclass(frozen=True, config=STRICT)
class Fresh:
    """Each stage trains a model of random vectors."""

    name: Literal["towers_fresh"] = "towers_fresh"
    trains: ClassVar[bool] = True
    learner: ClassVar[str] = LEARNER

    def begin(self, start: TowersStart) -> nn.Module:
        """Return the model as it was drawn."""
        return start.model

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write all weights."""
        _save(model, folder)

    def state(self, model: nn.Module) -> State:
        """The weights are all there is."""
        return {}


@dataclass(frozen=True, config=STRICT)
class Frozen:
    """Nothing trains after stage 1; users whom it didn't know are read off their histories."""

    name: Literal["towers_frozen"] = "towers_frozen"
    trains: ClassVar[bool] = False
    learner: ClassVar[str] = LEARNER

    def begin(self, start: TowersStart) -> nn.Module:
        """Return the model with no trainable parameter."""
        return start.model.requires_grad_(False)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write nothing: the lineage holds all there is."""

    def state(self, model: nn.Module) -> State:
        """Nothing was learnt."""
        return {}


def _save(model: nn.Module, folder: Path) -> None:
    from peso_cli.two_tower.weights import write_weights

    write_weights(model, folder)
