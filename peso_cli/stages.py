"""The stage graph: which artifact a stage needs; find it, resume it or train it; lineage."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from peso_cli import processes
from peso_cli.artifacts import FORMAT, Artifact, provenance
from peso_cli.backbones.sources import contents
from peso_cli.config.compose import Composed
from peso_cli.config.fingerprint import base_settings, digest, later_settings
from peso_cli.config.schema import STAGE_FORMS, Config, ConfigBackbone, PretrainedBackbone
from peso_cli.data.blocks import Dataset
from peso_cli.data.open import open_dataset
from peso_cli.errors import DivergedError, InputError, RunError
from peso_cli.files import blaming
from peso_cli.hybrid.adapters import Fused
from peso_cli.hybrid.settings import Hybrid, check_candidates
from peso_cli.learners import check_parts, check_trainer, learner_of
from peso_cli.lookalikes import lookalike
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.methods.memories.current import Current
from peso_cli.methods.parts import Adapter, Memory, Regularizer
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.tracking.account import without_account
from peso_cli.two_tower.adapters import Inherited

if TYPE_CHECKING:
    from peso_cli.tracking.record import NoRecord, Record
    from peso_cli.training.checkpoints import Checkpoint
    from peso_cli.training.stage import StageTask


FINGERPRINT = 1
"""Version of what a fingerprint is made of. Whatever changes it makes strangers of all stages there are."""

_DIGITS = 10
"""Numbers of stages have fewer."""


class Display(Protocol):
    """Where a run says what it is doing."""

    def say(self, text: str) -> None:
        """Show a line."""

    def bar(self, title: str) -> Callable[[int, int, str], None]:
        """Open a progress bar; call it with (done, total, note)."""


@dataclass(frozen=True, eq=False)
class Run:
    """One configuration over all its stages.

    Attributes:
        composed: the configuration.
        dataset: its data.
    """

    composed: Composed
    dataset: Dataset
    _verified: set[int] = field(default_factory=set, repr=False)
    _fingerprints: list[str] = field(default_factory=list, repr=False)

    @property
    def config(self) -> Config:
        """The typed configuration."""
        return self.composed.config

    @cached_property
    def made_of(self) -> dict[str, Run]:
        """The runs of a hybrid's parts by their roles; of any other method none."""
        return {role: Run(composed, self.dataset) for role, composed in self.config.parts.items()}

    @cached_property
    def contents(self) -> dict[str, str]:
        """Digests of the files that the backbone starts from, by the setting that names them."""
        return contents(self.config.backbone)

    @cached_property
    def _base_digest(self) -> str:
        parts = {role: part._base_digest for role, part in self.made_of.items()}
        return digest(base_settings(self.config, self.contents) | ({"parts": parts} if parts else {}))

    @cached_property
    def _later_digest(self) -> str:
        parts = {role: part._later_digest for role, part in self.made_of.items()}
        return digest(later_settings(self.config, self.contents) | ({"parts": parts} if parts else {}))

    def artifact(self, stage: int) -> Artifact:
        """Return where a stage's artifact lies: dataset / backbone / method / variant / seed / stage.

        All methods that agree on how stage 1 trains find it in the same place, under the name `base`.
        """
        config = self.config
        method, variant = "base", self._base_digest[:8]
        if stage > 1:
            method, variant = config.method.name, config.variant or self._later_digest[:8]
        root = Path(config.output) / config.dataset.name / config.backbone.name / method / variant
        return Artifact(root / f"seed_{config.seed}" / f"stage_{stage}")

    def lineage(self, stage: int) -> tuple[Artifact, ...]:
        """Return the artifacts of all stages up to one, stage 1 first."""
        return tuple(self.artifact(s) for s in range(1, stage + 1))

    def parts(self, stage: int) -> tuple[Adapter, Regularizer, Memory]:
        """Return the adapter, regularizer and memory of a stage; stage 1 is the same for every method."""
        if stage > 1:
            return self.config.adapter, self.config.regularizer, self.config.memory
        return _first_adapter(self.config), NoRegularizer(), Current()

    def fingerprint(self, stage: int) -> str:
        """Return the digest of everything that shapes a stage: settings, seed, data, and the stage before it."""
        # Each holds the one before it: from the first one on, however many there are.
        while len(self._fingerprints) < stage:
            self._fingerprints.append(self._shape(1 + len(self._fingerprints)))
        return self._fingerprints[stage - 1]

    def _shape(self, stage: int) -> str:
        """Return the fingerprint of the first stage that has none yet."""
        data = {str(s): self.dataset.block(s).digest for s in {stage, *self.parts(stage)[2].stages(stage)}}
        settings = self._base_digest if stage == 1 else self._later_digest
        parent = self._fingerprints[-1] if stage > 1 else None
        catalog = self.dataset.catalog_at(stage).digest
        parts = [part.fingerprint(stage) for part in self.made_of.values()]
        return digest([FINGERPRINT, settings, self.config.seed, stage, catalog, data, parent, *parts])

    def verify(self, stage: int) -> None:
        """Check, once per run of the program, that a finished stage is what its place and its checksums promise.

        Raises:
            InputError: it was made from other settings or data.
            RunError: a file of it is damaged.
        """
        if stage not in self._verified:
            self.artifact(stage).verify(self.fingerprint(stage))
            self._verified.add(stage)

    def require(self, stage: int) -> tuple[Artifact, ...]:
        """Return the verified lineage of a finished stage.

        Raises:
            InputError: it isn't trained yet, or was made from other settings or data.
            RunError: a file of it is damaged.
        """
        lineage = self.lineage(stage)
        for number, artifact in enumerate(lineage, start=1):
            if not artifact.finished:
                command = shlex.join(["peso", "train", *self.composed.arguments(stage)])
                beside = lookalike(artifact, self.composed, self.contents)
                raise InputError(
                    f"stage {number} of {self.config.method.name} isn't trained with these settings "
                    f"(looked in {artifact.folder}){beside}; first run: {command}"
                )
            self.verify(number)
        for part in self.made_of.values():
            part.require(stage)
        return lineage


def _first_adapter(config: Config) -> Adapter:
    """Return the adapter of stage 1."""
    match config.backbone:
        case ConfigBackbone():
            return FullWeights()
        case PretrainedBackbone():
            return Evolving()
        case Hybrid():
            return Fused()
        case _:
            return cast(Adapter, Inherited())


def open_run(composed: Composed) -> Run:
    """Open the data of a configuration.

    Raises:
        InputError: the data isn't there or is broken, or settings contradict each other.
    """
    check_settings(composed.config)
    return Run(composed, open_dataset(composed.config.dataset))


def check_settings(config: Config) -> None:
    """Check what settings of several groups mean together.

    Raises:
        InputError: they contradict each other.
    """
    check_parts(config)
    check_trainer(config)
    for role, part in config.parts.items():
        try:
            check_settings(part.config)
        except InputError as error:
            raise InputError(f"backbone.{role}: {error}") from None
    if isinstance(config.backbone, Hybrid):
        check_candidates(config.backbone.candidates, config.decoding)
    if not config.adapter.trains and not isinstance(config.regularizer, NoRegularizer):
        raise InputError(
            f"regularizer={config.regularizer.name}: adapter={config.adapter.name} trains nothing that it could hold; "
            "give regularizer=none"
        )
    if Path(config.output).is_file():
        raise InputError(f"output={config.output}: is a file; give a folder")


def wanted_stages(stage: int | str | Sequence[int], dataset: Dataset) -> tuple[int, ...]:
    """Read `stage=`: a number, several (`1..3` or a list), or `all`.

    Raises:
        InputError: it can't be read, or there is no such stage.
    """
    wanted: Sequence[int]
    match stage:
        case int():
            wanted = (stage,)
        case "all":
            wanted = range(1, dataset.stages + 1)
        case str():
            first, dots, last = stage.partition("..")
            numbers = dots and first.isdecimal() and last.isdecimal() and max(len(first), len(last)) < _DIGITS
            if not (numbers and int(first) <= int(last)):
                raise InputError(f"stage={stage}: {STAGE_FORMS}")
            wanted = range(int(first), int(last) + 1)
        case _:
            wanted = sorted(set(stage))
            stage = list(stage)
    if not wanted or wanted[0] < 1 or wanted[-1] > dataset.stages:
        raise InputError(f"stage={stage}: {dataset.name} has stages 1 to {dataset.stages}")
    return tuple(wanted)


def ensure(run: Run, stages: Sequence[int], display: Display) -> None:
    """Bring stages into being, their ancestors first: reuse what is finished, resume what has begun, train the rest.

    Those of a hybrid's parts come before its own.

    Raises:
        InputError: data is missing, or a stage's place holds something made otherwise.
        RunError: an artifact is damaged, or training diverged.
    """
    last = max(stages)
    for stage in range(1, last + 1):
        run.dataset.block(stage)
    for part in run.made_of.values():
        ensure(part, stages, display)
    for stage in range(1, last + 1):
        _ensure_stage(run, stage, display, needed_by=None if stage in stages else last)


def _ensure_stage(run: Run, stage: int, display: Display, needed_by: int | None) -> None:
    artifact = run.artifact(stage)
    if not processes.agreed(artifact.finished and not artifact.checkpoint.exists()):
        with artifact.held(lambda: display.say(f"stage {stage}: waiting for another process that trains it")):
            # The process that was waited for may have finished it.
            if not processes.agreed(artifact.finished):
                _bring_into_being(run, stage, artifact, display, needed_by)
                processes.wait()
                return
            # One that was killed just behind its mark left its checkpoint.
            if processes.first():
                artifact.checkpoint.unlink(missing_ok=True)
    run.verify(stage)
    display.say(f"stage {stage}: reusing {artifact.folder}")


def _bring_into_being(run: Run, stage: int, artifact: Artifact, display: Display, needed_by: int | None) -> None:
    from peso_cli.training.stage import StageTask

    fingerprint, fresh = run.fingerprint(stage), not artifact.begun
    resume = unfinished(run, stage)
    why = f" (stage {needed_by} needs it)" if needed_by else ""
    verb = "resuming" if resume else "training"
    display.say(f"stage {stage}: {verb} {artifact.folder}{why}")
    if alone := without_account(run.config.tracker):
        display.say(alone)
    if processes.first():
        artifact.begin(run.composed.plain, _lineage(run, stage, fingerprint))
    task = StageTask(run.config, run.dataset, stage, *run.parts(stage), run.lineage(stage - 1), artifact)
    try:
        with blaming(artifact.folder):
            _train_and_score(run, task, resume, display)
    except InputError:
        # Some mistakes show only when the backbone is built; they too leave nothing behind.
        if fresh and processes.first():
            artifact.discard()
        raise


def unfinished(run: Run, stage: int) -> Checkpoint | None:
    """Return the checkpoint from which an unfinished stage goes on; None if it begins anew.

    Raises:
        InputError: what has begun there is of other settings or data.
        RunError: what has begun there is damaged, or has diverged.
    """
    from peso_cli.training.checkpoints import load_checkpoint

    artifact, fingerprint = run.artifact(stage), run.fingerprint(stage)
    if artifact.begun:
        artifact.match(fingerprint)
        artifact.refuse_diverged()
    found = load_checkpoint(artifact.checkpoint, fingerprint)
    if found:
        artifact.check_log(found.progress["log_position"])
    return found


def _train_and_score(run: Run, task: StageTask, resume: Checkpoint | None, display: Display) -> None:
    from peso_cli.evaluation.figures import score_own_stage
    from peso_cli.tracking.beside import send_beside

    with _open_record(run, task, resume) as record:
        begun = time.monotonic()
        try:
            progress = learner_of(run.config).train_stage(
                task, record, resume, display.bar(f"stage {task.stage}: training"), display.say
            )
        except DivergedError as error:
            record.diverged(error.known)
            if processes.first():
                task.artifact.mark_diverged(str(error), error.known)
            raise RunError(f"{task.artifact.folder}: {error}") from None
        seconds = time.monotonic() - begun
        score_own_stage(run, task.stage, record, progress, seconds, display)
    if processes.first():
        task.artifact.finish()
        send_beside(run.config.tracker, Path(run.config.output))


def _open_record(run: Run, task: StageTask, resume: Checkpoint | None) -> AbstractContextManager[Record | NoRecord]:
    from peso_cli.tracking.record import NoRecord, open_record

    if not processes.first():
        return nullcontext(NoRecord())
    return open_record(
        run.config.tracker,
        task.artifact.folder,
        group="/".join(task.artifact.folder.parts[-5:-1]),
        name=f"{run.config.method.name} stage {task.stage}",
        settings=run.composed.plain,
        keep_bytes=resume.progress["log_position"] if resume else 0,
    )


def _parts(run: Run, stage: int) -> dict[str, dict[str, str]]:
    return {
        role: {"path": str(part.artifact(stage).folder), "fingerprint": part.fingerprint(stage)}
        for role, part in run.made_of.items()
    }


def _lineage(run: Run, stage: int, fingerprint: str) -> dict[str, Any]:
    before = range(max(1, stage - 1), stage)
    parents = [{"path": str(run.artifact(s).folder), "fingerprint": run.fingerprint(s)} for s in before]
    adapter, regularizer, memory = run.parts(stage)
    return {
        "format": FORMAT,
        "dataset": run.dataset.name,
        "method": run.config.method.name if stage > 1 else "base",
        "seed": run.config.seed,
        "stage": stage,
        "fingerprint": fingerprint,
        "parents": parents,
        **({"parts": _parts(run, stage)} if run.made_of else {}),
        "composition": {"adapter": adapter.name, "regularizer": regularizer.name, "memory": memory.name},
        "trained_on": list(memory.stages(stage)) if adapter.trains else [],
        "data": {
            "catalog": run.dataset.catalog_at(stage).digest,
            **run.dataset.about,
            "blocks": {str(s): run.dataset.block(s).digest for s in sorted({stage, *memory.stages(stage)})},
        },
        "backbone": run.contents,
        **provenance(),
    }
