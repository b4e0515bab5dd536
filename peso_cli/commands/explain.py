"""What recommendations owe to the items of histories: the one thing in a report that asks models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from peso_cli.errors import InputError
from peso_cli.reports.collected import Record
from peso_cli.reports.page.section import Carried

_SHOWN = 3
"""Items of a history."""


def explain(record: Record, recommended: Mapping[str, str]) -> dict[str, list[Carried]]:
    """Return for test users of a stage the items of their histories that carried a recommendation most.

    Args:
        record: the stage.
        recommended: users to an item.

    Raises:
        InputError: the model or its data can't be opened by the settings of the record, or it reads no histories.
        RunError: a file of it is damaged.
    """
    from peso_cli.config.compose import compose
    from peso_cli.evaluation.protocol import user_examples
    from peso_cli.learners import learner_of
    from peso_cli.reports.filling import scoring_gap
    from peso_cli.stages import open_run

    stage = record.place.stage
    gap = scoring_gap(record, record.place.seed, str(stage))
    if gap.needs_folder:
        raise InputError("a choice comes from a config folder that isn't known")
    run = open_run(compose(gap.words, gap.config_dir))
    ranker = learner_of(run.config).open_ranker(run.config, run.dataset, run.require(stage))
    examples = user_examples(run.dataset, stage, "test", run.config.prompt.window)
    rows = {examples.block.users[user]: row for row, user in enumerate(examples.user)}
    catalog, found = run.dataset.catalog, {}
    for user, item in recommended.items():
        history = examples.history(rows[user])
        left_out = ranker.leave_one_out(history, np.array([catalog.position[item]]), user)
        strongest = left_out.strongest(0, _SHOWN)
        found[user] = [Carried(catalog.items[history[place]], value) for place, value in strongest]
    return found
