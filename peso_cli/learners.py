"""The kinds of learners that can stand behind a stage, told apart in this one place: by the backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from peso_cli.config.schema import Config, ConfigBackbone, PretrainedBackbone
from peso_cli.errors import InputError
from peso_cli.hybrid.settings import LEARNER as HYBRID
from peso_cli.hybrid.settings import Hybrid
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.two_tower.settings import LEARNER, SasRec, TwoTower

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peso_cli.artifacts import Artifact
    from peso_cli.data.blocks import Dataset
    from peso_cli.decoding.leave_one_out import LeftOut
    from peso_cli.evaluation.ranking import History, Ranking
    from peso_cli.semantic_ids.catalog import Catalog
    from peso_cli.tracking.record import NoRecord, Record
    from peso_cli.training.checkpoints import Checkpoint
    from peso_cli.training.loop import Progress
    from peso_cli.training.stage import StageTask

_LANGUAGE_MODEL = "language_model"
_WORDS = {_LANGUAGE_MODEL: "language models", LEARNER: "two-tower models", HYBRID: "hybrids"}
_MENDS = {
    _LANGUAGE_MODEL: "a method of language models, such as method=peso",
    LEARNER: "a two-tower method, such as method=two_tower_finetune",
    HYBRID: "method=hybrid",
}


class AnyRanker(Protocol):
    """What scoring needs of a trained model."""

    def within(self, catalog: Catalog) -> AnyRanker:
        """Return a ranker with the same model whose recommendations come from another catalog."""

    def rank(
        self,
        histories: Sequence[History],
        k: int,
        tick: Callable[[int, int], None] = ...,
        names: Sequence[str | None] | None = None,
    ) -> Ranking:
        """Rank for (n) histories and, for models that know them, (n) ids of users."""

    def leave_one_out(self, history: History, candidates: NDArray[np.int64], name: str | None = None) -> LeftOut:
        """Score (C,) items by a history, whole and without each of its items; raises InputError where it isn't read."""


class Learner(Protocol):
    """What a run needs of a kind of learner."""

    def train_stage(
        self,
        task: StageTask,
        record: Record | NoRecord,
        resume: Checkpoint | None,
        tick: Callable[[int, int, str], None],
        say: Callable[[str], None],
    ) -> Progress | None:
        """Train one stage and write what it learnt into its artifact; None where the adapter doesn't train."""

    def open_ranker(self, config: Config, dataset: Dataset, lineage: Sequence[Artifact]) -> AnyRanker:
        """Return a ranker of what a lineage of finished artifacts learnt."""


@dataclass(frozen=True)
class Measures:
    """What a kind of learner minimises in training, and what it goes by in validation, in words."""

    training: str
    validation: str


def measures_of(config: Config) -> Measures:
    """Return what the losses of a configuration's stages are."""
    if isinstance(config.backbone, TwoTower):
        return Measures("ranking loss", "1 - mean reciprocal rank")
    return Measures("cross-entropy", "cross-entropy")


def learner_of(config: Config) -> Learner:
    """Return what stands behind the stages of a configuration."""
    if isinstance(config.backbone, TwoTower):
        from peso_cli.two_tower import stage as two_tower

        return two_tower
    if isinstance(config.backbone, Hybrid):
        from peso_cli.hybrid import stage as hybrid

        return hybrid
    from peso_cli.training import stage

    return stage


def check_parts(config: Config) -> None:
    """Check that the parts of the method are of the backbone's kind; `none` and all memories are of both.

    Raises:
        InputError: they aren't.
    """
    kind = _kind(config)
    parts: dict[str, Any] = {"adapter": config.adapter, "regularizer": config.regularizer}
    for group, part in parts.items():
        other = getattr(part, "learner", _LANGUAGE_MODEL)
        if other != kind and not isinstance(part, NoRegularizer):
            raise InputError(
                f"backbone={config.backbone.name} with method={config.method.name}: {group}={part.name} is of "
                f"{_WORDS[other]}, the backbone is none; give {_MENDS[kind]}, or another backbone"
            )


def check_trainer(config: Config) -> None:
    """Check that a two-tower model is given no setting of training that it has no use for.

    Raises:
        InputError: it is; naming the setting.
    """
    backbone, trainer = config.backbone, config.trainer
    if not isinstance(backbone, TwoTower):
        return
    idle: dict[str, Any] = {"batch_tokens": 1, "accumulation": 1, "packing": "auto"}
    if not isinstance(backbone, SasRec):
        idle["temperature"] = 1.0
    for name, value in idle.items():
        given = getattr(trainer, name)
        if given != value:
            raise InputError(
                f"trainer.{name}={given}: backbone={backbone.name} has no use for it, its batches are of "
                f"backbone.batch={backbone.batch}; leave it out, or give trainer=two_tower"
            )


def _kind(config: Config) -> str:
    match config.backbone:
        case Hybrid():
            return HYBRID
        case ConfigBackbone() | PretrainedBackbone():
            return _LANGUAGE_MODEL
        case _:
            return LEARNER
