"""What two-tower models, and the parts that their continual strategies are made of, owe each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from peso_cli.errors import InputError
from peso_cli.methods.parts import Penalty, State
from peso_cli.training.sequences import Index


@dataclass(frozen=True, eq=False)
class Towers:
    """The vectors that scores are products of.

    Attributes:
        users: (users, width), or None where a model makes them of histories.
        items: (items, width).
    """

    users: Tensor | None
    items: Tensor

    def detached(self) -> Towers:
        """Return the same vectors without a graph."""
        return Towers(None if self.users is None else self.users.detach(), self.items.detach())


@dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions as rows of the tables of users and items.

    Attributes:
        users, items: (n,) rows.
        weights: (n,) factors on their loss.
    """

    users: Index
    items: Index
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class TowersStart:
    """What an adapter begins a stage from.

    Attributes:
        model: the model as it is drawn at random for the users and items known at the stage.
        previous: the weights that the stage before left; their rows come first in the model's.
        trained: what the stage trains on.
        cold_start: how vectors without a past begin, as the backbone says it.
    """

    model: nn.Module
    previous: Mapping[str, Tensor]
    trained: Interactions
    cold_start: str


class TowersAdapter(Protocol):
    """What a stage of a two-tower model needs of an adapter: how the stage begins, and whether it trains at all."""

    trains: ClassVar[bool]
    learner: ClassVar[str]

    @property
    def name(self) -> str:
        """The name by which results know it."""

    def begin(self, start: TowersStart) -> nn.Module:
        """Return the model that this stage trains."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write the weights under the artifact's `folder`."""

    def state(self, model: nn.Module) -> State:
        """Return what the stages to come need besides that."""


@dataclass(frozen=True, eq=False)
class StrategyStart:
    """What a strategy begins a stage from.

    Attributes:
        model: the model as the stage begins; modules under `model.strategy` train with it and are not kept.
        previous: the vectors of the stage before, without a graph; users and items it knew come first in the model's.
        trained: what the stage trains on.
        seed: of the stage.
        forward: trains the same model on the stage's own data alone and returns its vectors, without a graph.
    """

    model: nn.Module
    previous: Towers
    trained: Interactions
    seed: int
    forward: Callable[[], Towers]

    def previous_users(self) -> Tensor:
        """Return the (users, width) vectors of users of the stage before.

        Raises:
            InputError: the model has none.
        """
        if self.previous.users is None:
            raise InputError("the backbone has no vectors of users that could be held; give bpr or lightgcn")
        return self.previous.users

    def returning(self) -> Index:
        """Return the users of the stage's training interactions that the stage before knew, in order of their rows."""
        users = np.unique(self.trained.users)
        return users[users < len(self.previous_users())]


class Strategy(Protocol):
    """What a stage of a two-tower model needs of a regularizer."""

    learner: ClassVar[str]

    @property
    def name(self) -> str:
        """The name by which results know it."""

    def begin(self, start: StrategyStart) -> Penalty | None:
        """Take references to the past and return the penalty, or None where it can't act (strength 0).

        Raises:
            InputError: the model has nothing that it could hold.
        """


class PairBatches(Protocol):
    """What strategies look at in the batches of a step."""

    users: Index
    items: Index


def batch_rows(batches: Sequence[PairBatches]) -> tuple[Index, Index]:
    """Return the distinct users and items of a step's batches, in order of their rows."""
    users = np.unique(np.concatenate([batch.users for batch in batches]))
    return users, np.unique(np.concatenate([batch.items for batch in batches]))
