"""The stage as a function, for two-tower models; what it has in common with a language model's is the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from torch import nn

from peso_cli import processes
from peso_cli.artifacts import Artifact
from peso_cli.config.schema import Config
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import Examples, examples
from peso_cli.errors import InputError
from peso_cli.evaluation.ranking import pick_device, seeded_sample
from peso_cli.methods.memories.current import Current
from peso_cli.methods.parts import Memory, Penalty, Portion
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.training.checkpoints import Checkpoint
from peso_cli.training.loop import Job, Log, Progress, train
from peso_cli.training.memory import begin_peak
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import shared
from peso_cli.training.stage import StageTask, Tick, make_deterministic, stage_seed
from peso_cli.two_tower.adapters import Inherited
from peso_cli.two_tower.batches import Asked, Histories, Pairs, Validation
from peso_cli.two_tower.graph import adjacency
from peso_cli.two_tower.models import Model, make_model
from peso_cli.two_tower.parts import Interactions, Strategy, StrategyStart, Towers, TowersAdapter, TowersStart
from peso_cli.two_tower.ranking import BLOCK, TowerRanker
from peso_cli.two_tower.roster import Roster, roster
from peso_cli.two_tower.scores import Seen, queries_of
from peso_cli.two_tower.settings import LightGcn, SasRec, TwoTower
from peso_cli.two_tower.weights import newest, put_first, read_weights

_FORWARD = ".forward.safetensors"
"""The checkpoint of a forward model, which is trained in one go: what is hidden goes when a stage begins."""


@dataclass(frozen=True, eq=False)
class StageData:
    """What a model may know at a stage.

    Attributes:
        config, dataset: the settings and the data.
        stage: the stage.
    """

    config: Config
    dataset: Dataset
    stage: int

    @cached_property
    def settings(self) -> TwoTower:
        """The backbone."""
        return cast(TwoTower, self.config.backbone)

    @cached_property
    def roster(self) -> Roster:
        """The rows of users and items."""
        return roster(self.dataset, self.stage)

    @cached_property
    def known(self) -> Interactions:
        """All training interactions up to the stage: the edges of the graph, and what is no negative."""
        return self.roster.interactions(Portion(self.of(s)) for s in range(1, self.stage + 1))

    @cached_property
    def had(self) -> Seen:
        """The same by user."""
        return Seen(self.roster.matrix(self.known))

    @property
    def left_out(self) -> Seen | None:
        """What rankings leave out."""
        return self.had if self.settings.seen == "left_out" else None

    def of(self, stage: int) -> Examples:
        """Return all training examples of a stage."""
        return examples(self.dataset.block(stage), "train", self.config.prompt.window)

    def drawn(self) -> Model:
        """Return the model as it is drawn at random at this stage, on its device."""
        device, settings = pick_device(self.config.device), self.settings
        graph = adjacency(self.had.matrix, device) if isinstance(settings, LightGcn) else None
        torch.manual_seed(stage_seed(self.config.seed, self.stage))
        sizes = len(self.roster.users), len(self.roster.items)
        return make_model(settings, *sizes, self.config.prompt.window, graph).to(device)

    def learnt(self, artifact: Artifact) -> Model:
        """Return the model with the weights that the stage left."""
        model = self.drawn()
        put_first(model, read_weights(artifact))
        return model.eval()


def train_stage(
    task: StageTask, record: Log, resume: Checkpoint | None, tick: Tick, say: Callable[[str], None]
) -> Progress | None:
    """Train one stage and write what it learnt into its artifact; None where the adapter doesn't train.

    Raises:
        InputError: the stage has nothing to train on, or the settings don't fit the model.
        RunError: training diverged.
    """
    device = pick_device(task.config.device)
    begin_peak(device)
    make_deterministic(device)
    if not task.adapter.trains:
        return None
    if processes.count() > 1 or task.config.trainer.shard != "none":
        raise InputError(
            f"backbone={task.config.backbone.name}: two-tower models train in one process; start it without torchrun "
            "or accelerate launch, with trainer.shard=none"
        )
    adapter = cast(TowersAdapter, task.adapter)
    stage = _Stage(StageData(task.config, task.dataset, task.stage), task.ancestors)
    model = stage.begun(adapter, task.memory)
    penalty = _begin_penalty(task, stage, model)
    job = stage.job(model, task.memory, record, task.artifact.checkpoint, tick)
    say(f"stage {task.stage}: {job.train}; {sum(p.numel() for p in model.parameters()):,} parameters")
    progress = train(replace(job, penalty=penalty, resume=resume))
    adapter.save(model, task.artifact.folder)
    return progress


def open_ranker(config: Config, dataset: Dataset, lineage: Sequence[Artifact]) -> TowerRanker:
    """Return a ranker of what a lineage of finished artifacts learnt, over the catalog of its last stage."""
    make_deterministic(pick_device(config.device))
    stage = newest(lineage)
    data = StageData(config, dataset, stage)
    model = data.learnt(lineage[stage - 1])
    with torch.no_grad():
        towers = model.towers().detached()
    catalog = dataset.catalog_at(len(lineage))
    return TowerRanker(model, towers, data.roster, catalog, config.prompt.window, data.left_out)


@dataclass(frozen=True, eq=False)
class _Stage:
    """A stage that is about to train.

    Attributes:
        data: what it may know.
        ancestors: the finished artifacts of the stages before, stage 1 first.
    """

    data: StageData
    ancestors: tuple[Artifact, ...]

    def begun(self, adapter: TowersAdapter, memory: Memory) -> nn.Module:
        """Return the model that trains."""
        stage = newest(self.ancestors)
        previous = read_weights(self.ancestors[stage - 1]) if stage else {}
        cold_start = getattr(self.data.settings, "cold_start", "random")
        return adapter.begin(TowersStart(self.data.drawn(), previous, self.trained(memory), cold_start))

    def trained(self, memory: Memory) -> Interactions:
        """Return what the stage trains on, as interactions."""
        return self.data.roster.interactions(self._portions(memory))

    def _portions(self, memory: Memory) -> list[Portion]:
        data = self.data
        chosen = memory.select(data.stage, data.of, data.config.seed)
        kept = [portion for portion in chosen if portion.weight > 0 and len(portion.examples)]
        if not kept:
            raise InputError(f"stage {data.stage} of {data.dataset.name} yields no training example")
        return kept

    def previous(self) -> Towers:
        """Return the vectors of the newest stage before."""
        stage = newest(self.ancestors)
        data = StageData(self.data.config, self.data.dataset, stage)
        with torch.no_grad():
            return data.learnt(self.ancestors[stage - 1]).towers().detached()

    def forward(self, checkpoint: Path, tick: Tick) -> Towers:
        """Return the vectors of a model that goes on from the stage before on the stage's own data alone."""
        model = self.begun(Inherited(), Current())
        try:
            train(self.job(model, Current(), _Silence(), checkpoint, tick))
        finally:
            checkpoint.unlink(missing_ok=True)
        model.eval()
        with torch.no_grad():
            return cast(Model, model).towers().detached()

    def job(self, model: nn.Module, memory: Memory, log: Log, checkpoint: Path, tick: Tick) -> Job:
        """Return a training job without a penalty."""
        from accelerate import Accelerator

        data, trainer = self.data, self.data.config.trainer
        first = data.stage == 1
        return Job(
            model=model,
            penalty=None,
            # Of a packer the loop asks `plan` and `batch` alone.
            train=cast(Packer, self._batches(memory)),
            valid=cast(Packer, Validation(_asked(data), BLOCK)),
            trainer=trainer,
            epochs=trainer.epochs if first else min(trainer.epochs, trainer.later_epochs),
            learning_rate=trainer.learning_rate * (1.0 if first else trainer.later_stage_scale),
            seed=stage_seed(data.config.seed, data.stage),
            sharded=False,
            checkpoint=checkpoint,
            resume=None,
            log=log,
            accelerator=Accelerator(cpu=pick_device(data.config.device).type == "cpu"),
            tick=tick,
        )

    def _batches(self, memory: Memory) -> Pairs | Histories:
        data, settings = self.data, self.data.settings
        if isinstance(settings, SasRec):
            sequences = (replace(shared(p.examples), weight=p.weight) for p in self._portions(memory))
            return Histories(tuple(sequences), data.roster, settings.batch, settings.negatives)
        return Pairs(self.trained(memory), data.had, settings.batch, settings.l2)


class _Silence:
    """A log that keeps nothing."""

    position = 0

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Note nothing."""


def _asked(data: StageData) -> Asked:
    """Return a seeded sample of the stage's validation users."""
    found = examples(data.dataset.block(data.stage), "valid", data.config.prompt.window)
    most, seed = data.config.trainer.validation_users, stage_seed(data.config.seed, data.stage)
    chosen = found.take(seeded_sample(len(found), most, seed))
    if not len(chosen):
        raise InputError(f"stage {data.stage} of {data.dataset.name} has no user with enough events to validate on")
    users, rows = data.roster.interactions([Portion(chosen)]).users, data.roster.row_of
    histories = [rows[history] for history in chosen.histories()]
    queries = queries_of(users.tolist(), histories, data.config.prompt.window)
    return Asked(queries, data.left_out, rows[chosen.target_items])


def _begin_penalty(task: StageTask, stage: _Stage, model: nn.Module) -> Penalty | None:
    """Begin the strategy, where there is one; it trains nothing of the model's."""
    if isinstance(task.regularizer, NoRegularizer):
        return None
    hidden = task.artifact.folder / _FORWARD
    seed = stage_seed(task.config.seed, task.stage)
    start = StrategyStart(
        model, stage.previous(), stage.trained(task.memory), seed, lambda: stage.forward(hidden, lambda *_: None)
    )
    try:
        return cast(Strategy, task.regularizer).begin(start)
    except InputError as error:
        raise InputError(
            f"regularizer={task.regularizer.name} with backbone={task.config.backbone.name}: {error}"
        ) from None
