"""How runs learnt: losses and penalty by optimiser step."""

from __future__ import annotations

from peso_cli.reports.filling import train_command
from peso_cli.reports.page.charts import charts
from peso_cli.reports.page.section import Section, Subject
from peso_cli.reports.plots import training

TITLE = "Training"
_TOLD = "A line for each method and seed in every stage, from the stage's first optimiser step to its last."


def build(subject: Subject) -> Section:
    """Return the section of a group.

    Raises:
        InputError: a stage's log is missing or damaged.
    """
    group = subject.group
    pictures = training.draw(group)
    if not pictures:
        like = group.variants[0].any
        commands = tuple(str(train_command(like, seed, group.stages[-1], "peso")) for seed in group.seeds)
        return Section(f"This needs {training.NEEDS}.", (), commands)
    lead = "Losses are cross-entropies; the penalty is what the regularizer adds to them, its strength included."
    shown = (charts(pictures, f"{subject.anchor}-training", _TOLD),)
    return Section(lead, shown, (subject.again("plot", "training"),))
