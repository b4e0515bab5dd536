"""Filling what a table lacks: the commands named under it, carried out one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from peso_cli.config.compose import compose
from peso_cli.errors import InputError
from peso_cli.reports.model import Gap
from peso_cli.stages import Display, ensure, open_run, wanted_stages


def fill(gaps: Callable[[], Iterable[Gap]], display: Display) -> int:
    """Fill gaps until none is left that wasn't tried; one that fails is told in a line and doesn't stop the others.

    Args:
        gaps: tells what is missing now; what has been filled may let more be known.
        display: where to say what is being done.

    Returns:
        How many failed.
    """
    tried: dict[Gap, bool] = {}
    while new := [gap for gap in dict.fromkeys(gaps()) if gap not in tried]:
        for number, gap in enumerate(new, start=1):
            display.say(f"{number} of {len(new)}: {gap}")
            tried[gap] = _filled(gap, display)
    return sum(not filled for filled in tried.values())


def _filled(gap: Gap, display: Display) -> bool:
    try:
        _carry_out(gap, display)
    except Exception as error:
        # Whatever went wrong with this one, foreseen or not, the others can still be filled.
        reason = " ".join(str(error).split()) or repr(error)
        display.say(f"failed: {gap}: {reason}")
        return False
    return True


def _carry_out(gap: Gap, display: Display) -> None:
    from peso_cli.evaluation.audiences import audiences
    from peso_cli.evaluation.figures import evaluate

    if gap.needs_folder:
        raise InputError("a choice in it comes from a config folder of your own; give that as --config-dir FOLDER")
    run = open_run(compose(gap.words, gap.config_dir))
    stages = wanted_stages(run.config.stage, run.dataset)
    asked = audiences(run, stages, display.say)
    if gap.verb == "train":
        ensure(run, stages, display)
    for stage, users in asked.items():
        evaluate(run, stage, users.on, users.split, display)
