"""`peso runs`: what has been trained, at what stage, with which figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from peso_cli.artifacts import Artifact, find_artifacts
from peso_cli.commands.output import print_json
from peso_cli.errors import InputError, RunError
from peso_cli.reports.collected import Figures, own_figures, place_of
from peso_cli.reports.results import figure_cells, figure_columns
from peso_cli.terminal import ERR, OUT

_NAMES = ("dataset", "backbone", "method", "variant", "seed", "stage", "state")


def runs(output: Path, as_json: bool) -> None:
    """Print every stage artifact under a folder with its own-stage test figures.

    Raises:
        InputError: the folder isn't there.
    """
    if not output.is_dir():
        raise InputError(f"--output {output}: no such folder")
    found = [pair for artifact in find_artifacts(output) if (pair := _row(artifact))]
    if as_json:
        print_json([{**row, "figures": {c: own[c] for c in figure_columns(own)}} for row, own in found])
        return
    if not found:
        OUT.print(f"nothing has been trained under {output} yet; try: peso train stage=3 method=peso", markup=False)
        return
    columns = figure_columns(*(own for _, own in found))
    table = Table(title=str(output), title_justify="left")
    for column in (*_NAMES, *columns):
        table.add_column(column)
    for row, own in found:
        cells = (*(str(row[name]) for name in _NAMES), *(figure_cells(own, columns) if own else ()))
        table.add_row(*map(Text, cells))
    OUT.print(table)


def _row(artifact: Artifact) -> tuple[dict[str, Any], Figures] | None:
    """Return what identifies a stage, and its summary on its own test users: none while it is unfinished."""
    try:
        artifact.check_format()
        place = place_of(artifact)
        own = own_figures(artifact.metrics(), artifact, place.stage) if artifact.finished else {}
    except (RunError, InputError) as error:
        ERR.print(f"left out: {error}", markup=False)
        return None
    state = "finished" if artifact.finished else "diverged" if artifact.diverged else "unfinished"
    return {**asdict(place), "folder": str(artifact.folder), "state": state}, own
