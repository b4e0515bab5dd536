"""The contracts of the parts that a continual method composes, and what a part gets to see when a stage begins.

A part is a frozen dataclass that its YAML fills in: `_target_` names the class, the other keys are its fields. Whoever
adds a part writes that class and that YAML; nothing lists the parts that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from peso_cli.config.types import STRICT as STRICT  # a part refuses keys that it doesn't know
from peso_cli.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from peso_cli.artifacts import Artifact
    from peso_cli.data.examples import Examples
    from peso_cli.training.layouts import Batch

Factors = Mapping[str, tuple["Tensor", "Tensor"]]
"""Target module's name to its LoRA factors: A of shape (rank, in) and B of shape (out, rank)."""

State = dict[str, "Tensor"]


class Data(Protocol):
    """The training data of stages, for parts that look at it when a stage begins."""

    def batches(self, stage: int) -> Iterator[Batch]:
        """Yield all training examples of a stage, packed; a token that several examples share comes once."""

    def examples(self, stage: int, most: int) -> Iterator[Batch]:
        """Yield a seeded sample of a stage's training examples, one in each padded row."""


@dataclass(frozen=True, eq=False)
class AdapterStart:
    """What an adapter begins a stage from.

    Attributes:
        model: the backbone with the newest whole weights of its lineage.
        lora: arguments of peft's LoraConfig: shape, targets, rows of the embedding that train.
        past: the stages since those weights that left an adapter, oldest first.
        stage: the stage that begins.
        data: the stages' training data, on the backbone's device; None where nobody looks at it.
    """

    model: PreTrainedModel
    lora: dict[str, Any]
    past: Sequence[Artifact] = ()
    stage: int = 2
    data: Data | None = None


class Adapter(Protocol):
    """What a stage needs of an adapter."""

    trains: ClassVar[bool]

    @property
    def name(self) -> str:
        """The name by which results know it."""

    def begin(self, start: AdapterStart) -> nn.Module:
        """Return the module that this stage trains; just what it trains requires gradients."""

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what scores users under the artifact's `folder`: an adapter in PEFT format, or whole weights."""

    def state(self, model: nn.Module) -> State:
        """Return what the stages to come need besides that; empty for most."""


@dataclass(frozen=True, eq=False)
class RegularizerStart:
    """What a regularizer begins a stage from.

    Attributes:
        model: what the adapter returned, in the state in which the stage begins.
        factors: its live LoRA factors, by module.
        past: the factors that earlier stages left, oldest first; each may be read anew whenever it is asked for.
        stage: the stage that begins.
        data: the stages' training data; None where nobody looks at it.
        state: what the penalty of the stage before left under `Penalty.state`; empty where there was none.
    """

    model: nn.Module
    factors: Factors
    past: Sequence[Factors] = ()
    stage: int = 2
    data: Data | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)

    def require_factors(self) -> None:
        """Raise an InputError where there is nothing that a regularizer on factors could hold."""
        if not self.factors:
            raise InputError("the adapter trains no LoRA factors that the regularizer could hold; add regularizer=none")


@dataclass(frozen=True, eq=False)
class Step:
    """The optimiser step that a penalty is asked for.

    Attributes:
        batches: the batches that the step's cross-entropy was taken over, in this process.
        progress: share of the stage's planned steps already done, from 0 to 1.
    """

    batches: Sequence[Batch] = ()
    progress: float = 0.0


@dataclass(frozen=True, eq=False)
class Penalty:
    """What is added to the cross-entropy.

    Attributes:
        value: returns strength x penalty as a scalar with a graph, at each optimiser step, after the cross-entropy's
            backward pass.
        state: tensors that the same regularizer is handed when the next stage begins.
        of_data: whether it is a mean over the step's data. Of several processes each then gives its own batches' part
            of the mean over those of all.
    """

    value: Callable[[Step], Tensor]
    state: State = field(default_factory=dict)
    of_data: bool = False


class Regularizer(Protocol):
    """What a stage needs of a regularizer."""

    @property
    def name(self) -> str:
        """The name by which results know it."""

    def begin(self, start: RegularizerStart) -> Penalty | None:
        """Take anchors and return the penalty, or None where it can't act (strength 0).

        Raises:
            InputError: there is nothing that it could hold.
        """


@dataclass(frozen=True, eq=False)
class Portion:
    """Examples of one block that a stage trains on.

    Attributes:
        examples: the examples.
        weight: factor on their loss.
    """

    examples: Examples
    weight: float = 1.0


class Memory(Protocol):
    """What a stage needs of a memory."""

    @property
    def name(self) -> str:
        """The name by which results know it."""

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return the stages whose training examples `stage` trains on, in order."""

    def select(self, stage: int, examples: Callable[[int], Examples], seed: int) -> tuple[Portion, ...]:
        """Return what `stage` trains on.

        Args:
            stage: the stage that begins.
            examples: a stage to all its training examples, in order of users and time.
            seed: of the run, the same in all its stages.
        """
