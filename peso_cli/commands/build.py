"""`peso data build`: from raw interactions to stages."""

from __future__ import annotations

import dataclasses

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.raw import RawDataset
from peso_cli.errors import InputError
from peso_cli.terminal import OUT, TerminalDisplay


def build(composed: Composed, as_json: bool) -> None:
    """Build a dataset's folder and print what every step dropped and what each stage holds.

    Raises:
        InputError: the configuration names no raw interactions, or they can't be read.
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
