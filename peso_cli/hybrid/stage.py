"""The stage as a function, for hybrids: the finished stages of both parts give a fusion, chosen on validation users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from peso_cli import processes
from peso_cli.artifacts import Artifact
from peso_cli.config.schema import Config
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import last_known
from peso_cli.evaluation.protocol import user_examples
from peso_cli.evaluation.ranking import Ranker, pick_device
from peso_cli.hybrid.choosing import Choice, choose, needs_exact, read_choice, write_choice
from peso_cli.hybrid.ranking import HybridRanker, Parts
from peso_cli.hybrid.settings import PARTS, Hybrid
from peso_cli.learners import learner_of
from peso_cli.stages import Run
from peso_cli.training.checkpoints import Checkpoint
from peso_cli.training.loop import Log
from peso_cli.training.memory import begin_peak
from peso_cli.training.stage import StageTask, Tick
from peso_cli.two_tower.ranking import TowerRanker


def train_stage(
    task: StageTask, record: Log, resume: Checkpoint | None, tick: Tick, say: Callable[[str], None]
) -> None:
    """Choose how the lists of both parts are fused, on the stage's validation users, and write it into the artifact.

    Raises:
        InputError: nobody is there to choose on, or a part can't bring enough candidates.
        RunError: a score isn't finite.
    """
    begin_peak(pick_device(task.config.device))
    parts = _open_parts(task.config, task.dataset, task.stage)
    choice = _choose(parts, task, lambda done, total: tick(done, total, "validation users"))
    say(f"stage {task.stage}: {_told(choice)}")
    if processes.first():
        write_choice(task.artifact, choice)
    processes.wait()


def open_ranker(config: Config, dataset: Dataset, lineage: Sequence[Artifact]) -> HybridRanker:
    """Return a ranker with both parts' models of the last stage and the fusion that the stage chose."""
    return HybridRanker(_open_parts(config, dataset, len(lineage)), read_choice(lineage[-1]).fusion)


def _open_parts(config: Config, dataset: Dataset, stage: int) -> Parts:
    rankers = []
    for role in PARTS:
        run = Run(config.parts[role], dataset)
        rankers.append(learner_of(run.config).open_ranker(run.config, dataset, run.lineage(stage)))
    settings = cast(Hybrid, config.backbone)
    return Parts(
        cast(Ranker, rankers[0]), cast(TowerRanker, rankers[1]), dataset.catalog_at(stage), settings.candidates
    )


def _choose(parts: Parts, task: StageTask, tick: Callable[[int, int], None]) -> Choice:
    config, settings = task.config, cast(Hybrid, task.config.backbone)
    chosen = user_examples(task.dataset, task.stage, "valid", config.prompt.window)
    names = [chosen.block.users[row] for row in chosen.user]
    parts = parts.within(task.dataset.catalog_at(last_known(task.stage, "valid")))
    top = config.decoding.top_k
    found = parts.candidates(chosen.histories(), names, top, needs_exact(settings), tick)
    return choose(found.pool, parts.catalog.sid_of[chosen.target_items], settings, top)


def _told(choice: Choice) -> str:
    """Say in a line what was chosen."""
    best = ", ".join(f"{name} {found[choice.by]:.4f} ({found['weight']:g})" for name, found in choice.best.items())
    return (
        f"{choice.fusion.kind} with weight {choice.fusion.weight:g} of the language model; {choice.by} of "
        f"{choice.users:,} validation users (weight): {best}"
    )
