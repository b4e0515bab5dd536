"""`peso data build`: from raw interactions to stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.raw import RawDataset
from peso_cli.errors import InputError
from peso_cli.terminal import OUT, TerminalDisplay

if TYPE_CHECKING:
    from peso_cli.data.stage_files import StageFigures


def build(composed: Composed, as_json: bool) -> None:
    """Build a dataset's folder; show what every step drops and what each stage holds.

    Raises:
        InputError: the configuration names no raw interactions, or they can't be made into stages.
        RunError: a download failed.
    """
    from peso_cli.data.build import build as run
    from peso_cli.data.sources.open import open_raw

    config = composed.config
    if not isinstance(config.dataset, RawDataset):
        raise InputError(
            f"dataset.source={config.dataset.source} is no source of raw interactions; give dataset=movielens_100k, "
            "or dataset=csv with dataset.interactions=[FILE]"
        )
    with TerminalDisplay() as display:
        report = run(config.dataset, config.cleaning, config.split, open_raw(config.dataset, display), display)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    OUT.print(stage_table(config.dataset.name, report.stages))
    OUT.print(f"{report.root}: next, peso tokenize dataset=built dataset.name={config.dataset.name}", markup=False)


def stage_table(name: str, stages: Sequence[StageFigures]) -> Table:
    """Return a table of what stages hold."""
    table = Table(title=name, title_justify="left")
    for heading in ("stage", "from", "to", "interactions", "users", "new", "items", "new"):
        table.add_column(heading, justify="right")
    for figures in stages:
        counts = (figures.interactions, figures.users, figures.new_users, figures.items, figures.new_items)
        moments = (_day(figures.first_timestamp), _day(figures.last_timestamp))
        table.add_row(str(figures.stage), *moments, *(f"{count:,}" for count in counts))
    return table


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
