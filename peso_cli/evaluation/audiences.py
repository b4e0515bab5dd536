"""Whom the stages of a run are scored on, checked before any work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from peso_cli.errors import InputError
from peso_cli.evaluation.protocol import Audience, audience_of, check_beams, user_examples

if TYPE_CHECKING:
    from peso_cli.stages import Run


def audiences(run: Run, stages: Sequence[int], say: Callable[[str], object]) -> dict[int, Audience]:
    """Return whom each of some stages is scored on, after checking that the figures can be worked out.

    Args:
        run: the run.
        stages: those that are scored.
        say: called with a line if a stage can't be scored on anybody: the last one, with `evaluation=next_stage`.

    Raises:
        InputError: settings contradict each other, a stage to be scored on isn't there or has nobody to be scored, no
            stage can be scored on anybody, or the beam or the catalog is too small.
    """
    config, dataset = run.config, run.dataset
    found = {stage: audience_of(config.evaluation, stage, dataset.stages) for stage in stages}
    last = f"stage {dataset.stages} is the last one of {dataset.name}, there is no next one to score it on"
    if not any(users.on for users in found.values()):
        raise InputError(f"evaluation=next_stage: {last}; give an earlier stage=")
    for stage, split in dict.fromkeys((stage, users.split) for users in found.values() for stage in users.on):
        user_examples(dataset, stage, split, config.prompt.window)
    # Items only ever come in, so that no catalog is smaller than the first.
    check_beams(config.decoding, dataset.catalog_at(1), config.decoding.top_k)
    if not all(users.on for users in found.values()):
        say(last)
    return found
