"""How the learning rate matters, and the factor by which it changes after stage 1."""

from __future__ import annotations

from peso_cli.reports.model import Table
from peso_cli.reports.selection import Group
from peso_cli.reports.sweeps import sweeps

NEEDS = "one method trained with several trainer.learning_rate or trainer.later_stage_scale"


def build(group: Group) -> list[Table]:
    """Return a table for each method that was trained with several."""
    return sweeps(group, ["trainer.learning_rate", "trainer.later_stage_scale"])
