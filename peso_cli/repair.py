"""Moving damaged stages aside, so that they can be trained anew and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from peso_cli.artifacts import Artifact, find_artifacts
from peso_cli.errors import RunError
from peso_cli.stages import Display, Run, unfinished


def repair(run: Run, last: int, display: Display) -> None:
    """Move the first damaged stage up to `last` aside, and the later ones of this lineage, which were made from it.

    A hybrid's parts are looked at first, each by itself.

    Raises:
        InputError: a stage's place holds something made otherwise.
    """
    for part in run.made_of.values():
        repair(part, last, display)
    for stage in range(1, last + 1):
        run.dataset.block(stage)
        if _damage(run, stage):
            _move(run, stage, display)
            return


def _damage(run: Run, stage: int) -> str | None:
    """Say what is wrong with what lies at a stage's place; None if it can be used, or there is nothing."""
    artifact = run.artifact(stage)
    try:
        if artifact.finished:
            artifact.verify(run.fingerprint(stage))
        elif artifact.folder.exists():
            unfinished(run, stage)
    except RunError as error:
        return str(error).split("; ")[0]
    return None


def _move(run: Run, stage: int, display: Display) -> None:
    with ExitStack() as held:
        wait = partial(display.say, f"stage {stage}: waiting for another process that trains it or a later one")
        concerned = [run.artifact(stage), *_made_from(run, stage)]
        for artifact in concerned:
            held.enter_context(artifact.held(wait))
        # The process that was waited for may have repaired it.
        if why := _damage(run, stage):
            display.say(f"stage {stage}: {why}")
            # The damaged stage last: what an interruption leaves is found again.
            for artifact in reversed(concerned):
                display.say(f"{artifact.folder}: moved aside to {artifact.set_aside().name}")
            _say_others(run, stage, display)


def _made_from(run: Run, stage: int) -> Iterator[Artifact]:
    """Yield the later stages of a lineage that were made from a stage; those that can't say are taken for such."""
    parents: set[object] = {run.fingerprint(stage)}
    for artifact in map(run.artifact, range(stage + 1, run.dataset.stages + 1)):
        if not artifact.begun:
            continue
        try:
            lineage = artifact.lineage()
        except RunError:
            lineage = {}
        if parents & {None, *_parents(lineage)}:
            parents.add(lineage.get("fingerprint"))
            yield artifact


def _parents(lineage: dict[str, object]) -> list[object]:
    """Return the fingerprints of the stages before; [] where there are none."""
    parents = lineage.get("parents")
    return [p.get("fingerprint") for p in parents if isinstance(p, dict)] if isinstance(parents, list) else []


def _say_others(run: Run, stage: int, display: Display) -> None:
    """Say which stages of other methods, which stay, were made from a stage that was moved aside."""
    fingerprint, others = run.fingerprint(stage), []
    for artifact in find_artifacts(Path(run.config.output)):
        try:
            others += [artifact] * (fingerprint in _parents(artifact.lineage()))
        except RunError:
            continue
    if others:
        names = ", ".join(str(artifact.folder) for artifact in others)
        display.say(f"made from stage {stage}, too, and left as they are: {names}")
