"""The stage as a function: (artifacts of the stages before, block, config) to the artifact of this stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from peso_cli import processes
from peso_cli.artifacts import Artifact
from peso_cli.backbones.build import build_backbone
from peso_cli.backbones.loading import load_for_inference, load_weights, lora_arguments
from peso_cli.backbones.prompts import Prompt
from peso_cli.config.schema import Config
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import Examples, examples
from peso_cli.errors import InputError
from peso_cli.evaluation.ranking import Ranker, pick_device, seeded_sample
from peso_cli.methods.lora import PastFactors, lora_factors
from peso_cli.methods.parts import Adapter, AdapterStart, Memory, Penalty, Regularizer, RegularizerStart
from peso_cli.training.checkpoints import Checkpoint
from peso_cli.training.estimate import describe
from peso_cli.training.layouts import Batch, Layout, Packed, Padded
from peso_cli.training.loop import Job, Log, Progress, train
from peso_cli.training.memory import begin_peak
from peso_cli.training.packing import Packer
from peso_cli.training.sequences import Sequences, one_by_one, shared
from peso_cli.training.sharding import shard_frozen

Tick = Callable[[int, int, str], None]

_LEAST_WEIGHT = 1e-20
"""Examples that weigh no more are left out: a step that met only such ones would drown in float32's rounding."""


@dataclass(frozen=True, eq=False)
class StageTask:
    """What one stage trains, from what, and where it leaves it.

    Attributes:
        config: the whole configuration.
        dataset: the blocks and the catalog.
        stage: 1-based stage number.
        adapter, regularizer, memory: the parts that hold in this stage.
        ancestors: the finished artifacts of the stages before, stage 1 first.
        artifact: where this stage goes.
    """

    config: Config
    dataset: Dataset
    stage: int
    adapter: Adapter
    regularizer: Regularizer
    memory: Memory
    ancestors: tuple[Artifact, ...]
    artifact: Artifact


def train_stage(
    task: StageTask, record: Log, resume: Checkpoint | None, tick: Tick, say: Callable[[str], None]
) -> Progress | None:
    """Train one stage and write what it learnt into its artifact; None where the adapter doesn't train.

    Raises:
        InputError: the stage has nothing to train on, or the settings don't fit the backbone.
        RunError: training diverged.
    """
    begin_peak(pick_device(task.config.device))
    if not task.adapter.trains:
        return None
    begun = begin_stage(task.config, task.dataset, task.stage, task.adapter, task.ancestors)
    model, penalty = begun.model, _begin_penalty(task, begun)
    job = _job(task, model, penalty, begun.data, record, resume, tick)
    say(f"stage {task.stage}: {describe(job.train, model)}")
    _distribute(job)
    progress = train(job)
    if processes.first():
        task.adapter.save(model, task.artifact.folder)
        task.artifact.write_state(adapter=task.adapter.state(model), regularizer=penalty.state if penalty else {})
    processes.wait()
    return progress


def _distribute(job: Job) -> None:
    """Let all processes begin with the numbers of the first one, and keep what they are told to share."""
    processes.copy_first([*job.model.parameters(), *job.model.buffers()])
    if job.sharded and processes.count() == 1:
        raise InputError("trainer.shard=frozen: needs several processes, as torchrun -m peso_cli train starts them")
    if job.sharded and job.penalty and job.penalty.of_data:
        raise InputError("trainer.shard=frozen: the regularizer looks at data itself; give trainer.shard=none")
    if job.sharded:
        shard_frozen(job.model)


@dataclass(frozen=True, eq=False)
class Begun:
    """A stage as it begins.

    Attributes:
        model: what trains, on its device.
        past: the stages before that left an adapter, oldest first.
        data: training examples of all stages.
    """

    model: nn.Module
    past: tuple[Artifact, ...]
    data: StageData


def begin_stage(config: Config, dataset: Dataset, stage: int, adapter: Adapter, ancestors: Sequence[Artifact]) -> Begun:
    """Begin a stage; what it draws at random follows from the stage's seed, so that it begins alike every time.

    Raises:
        InputError: the settings don't fit the backbone.
    """
    device = pick_device(config.device)
    make_deterministic(device)
    backbone = build_backbone(config.backbone, config.prompt, dataset.catalog, config.seed)
    past = load_weights(backbone.model, ancestors)
    backbone.model.to(device)  # type: ignore[arg-type]
    lora = lora_arguments(config.backbone, backbone.model, backbone.vocabulary)
    data = StageData(dataset, config, backbone.prompt)
    torch.manual_seed(stage_seed(config.seed, stage))
    try:
        model = adapter.begin(AdapterStart(backbone.model, lora, past, stage, data))
    except ValueError as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"backbone.lora: {first}") from None
    return Begun(model.to(device), past, data)


def _begin_penalty(task: StageTask, begun: Begun) -> Penalty | None:
    """Begin the regularizer, which only reads the model; training seeds every step anew, whatever is drawn here."""
    state = task.ancestors[-1].read_state("regularizer") if task.ancestors else {}
    past = PastFactors(begun.past)
    start = RegularizerStart(begun.model, lora_factors(begun.model), past, task.stage, begun.data, state)
    try:
        return task.regularizer.begin(start)
    except InputError as error:
        what = f"regularizer={task.regularizer.name} with adapter={task.adapter.name}"
        raise InputError(f"{what}: {error}") from None


def _job(
    task: StageTask,
    model: nn.Module,
    penalty: Penalty | None,
    data: StageData,
    record: Log,
    resume: Checkpoint | None,
    tick: Tick,
) -> Job:
    from accelerate import Accelerator

    trainer = task.config.trainer
    first = task.stage == 1
    scale = 1.0 if first else trainer.later_stage_scale
    return Job(
        model=model,
        penalty=penalty,
        train=Packer(_training_sequences(task, data), data.layout, trainer.batch_tokens),
        valid=Packer((_validation_sequences(task),), data.layout, 4 * trainer.batch_tokens),
        trainer=trainer,
        epochs=trainer.epochs if first else min(trainer.epochs, trainer.later_epochs),
        learning_rate=trainer.learning_rate * scale,
        seed=stage_seed(task.config.seed, task.stage),
        sharded=trainer.shard == "frozen",
        checkpoint=task.artifact.checkpoint,
        resume=resume,
        log=record,
        accelerator=Accelerator(cpu=pick_device(task.config.device).type == "cpu"),
        tick=tick,
    )


@dataclass(frozen=True, eq=False)
class StageData:
    """The training examples of all stages, laid out as the configuration says (see `methods.parts.Data`)."""

    dataset: Dataset
    config: Config
    prompt: Prompt

    @property
    def layout(self) -> Layout:
        """How training lays examples out."""
        return Packed(self.prompt) if self.config.trainer.packing == "auto" else Padded(self.prompt)

    def of(self, stage: int) -> Examples:
        """Return all training examples of a stage."""
        return examples(self.dataset.block(stage), "train", self.config.prompt.window)

    def sequences(self, found: Examples) -> Sequences:
        """Return examples as the sequences that the layout trains."""
        return shared(found) if self.config.trainer.packing == "auto" else one_by_one(found)

    def batches(self, stage: int) -> Iterator[Batch]:
        """Yield all training examples of a stage, as training lays them out, short ones first."""
        packer = Packer((self.sequences(self.of(stage)),), self.layout, self.config.trainer.batch_tokens)
        return (packer.batch(members) for members in packer.plan(None))

    def examples(self, stage: int, most: int) -> Iterator[Batch]:
        """Yield a seeded sample of a stage's training examples, one in each padded row."""
        found = self.of(stage)
        chosen = found.take(seeded_sample(len(found), most, stage_seed(self.config.seed, stage)))
        packer = Packer((one_by_one(chosen),), Padded(self.prompt), self.config.trainer.batch_tokens)
        return (packer.batch(members) for members in packer.plan(None))


def _training_sequences(task: StageTask, data: StageData) -> tuple[Sequences, ...]:
    portions = task.memory.select(task.stage, data.of, task.config.seed)
    kept = [p for p in portions if p.weight > _LEAST_WEIGHT and len(p.examples)]
    if not kept:
        raise InputError(f"stage {task.stage} of {task.dataset.name} yields no training example")
    return tuple(replace(data.sequences(p.examples), weight=p.weight) for p in kept)


def _validation_sequences(task: StageTask) -> Sequences:
    chosen = examples(task.dataset.block(task.stage), "valid", task.config.prompt.window)
    rows = seeded_sample(len(chosen), task.config.trainer.validation_users, stage_seed(task.config.seed, task.stage))
    if not len(rows):
        raise InputError(f"stage {task.stage} of {task.dataset.name} has no user with enough events to validate on")
    return one_by_one(chosen.take(rows))


def stage_seed(seed: int, stage: int) -> int:
    """Return the seed from which everything random of one stage follows."""
    return int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])


def make_deterministic(device: torch.device) -> None:
    """Make equal runs give equal bytes on the CPU; GPUs stay as fast as they are."""
    torch.use_deterministic_algorithms(device.type == "cpu")


def open_ranker(config: Config, dataset: Dataset, lineage: Sequence[Artifact]) -> Ranker:
    """Return a ranker of what a lineage of finished artifacts learnt, over the catalog of its last stage."""
    device = pick_device(config.device)
    make_deterministic(device)
    backbone = build_backbone(config.backbone, config.prompt, dataset.catalog, config.seed)
    model = load_for_inference(backbone.model, lineage)
    model.to(device)  # type: ignore[arg-type]
    return Ranker(model, backbone.vocabulary, backbone.prompt, dataset.catalog_at(len(lineage)), config.decoding)
