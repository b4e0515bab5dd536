"""`peso runs`: what has been trained, at what stage, with which figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from peso_cli.artifacts import Artifact, find_artifacts
from peso_cli.commands.output import print_json
from peso_cli.errors import InputError, RunError
from peso_cli.reports.results import COLUMNS
from peso_cli.terminal import ERR, OUT


def runs(output: Path, as_json: bool) -> None:
    """Print every stage artifact under a folder with its own-stage test figures.

    Raises:
        InputError: the folder isn't there.
    """
    if not output.is_dir():
        raise InputError(f"--output {output}: no such folder")
    rows = [row for artifact in find_artifacts(output) if (row := _row(artifact))]
    if as_json:
        print_json(rows)
        return
    if not rows:
        OUT.print(f"nothing has been trained under {output} yet; try: peso train stage=3 method=peso", markup=False)
        return
    table = Table(title=str(output), title_justify="left")
    for column in ("dataset", "backbone", "method", "variant", "seed", "stage", "state", *COLUMNS):
        table.add_column(column)
    for row in rows:
        names = (row[name] for name in ("dataset", "backbone", "method", "variant", "seed", "stage", "state"))
        table.add_row(*map(str, names), *(f"{row['figures'][c]:.4f}" if row["figures"] else "" for c in COLUMNS))
    OUT.print(table)


def _row(artifact: Artifact) -> dict[str, Any] | None:
    try:
        dataset, backbone, _, variant = artifact.folder.resolve().parts[-6:-2]
        named = {name: artifact.lineage()[name] for name in ("method", "seed", "stage")}
        figures = _figures(artifact, named["stage"]) if artifact.finished else {}
    except RunError as error:
        ERR.print(f"left out: {error}", markup=False)
    except (KeyError, TypeError, ValueError):
        ERR.print(f"left out: {artifact.folder}: not the folder of a stage, or a damaged one", markup=False)
    else:
        place = {"dataset": dataset, "backbone": backbone, "variant": variant, "folder": str(artifact.folder)}
        return {**place, **named, "state": "finished" if artifact.finished else "unfinished", "figures": figures}
    return None


def _figures(artifact: Artifact, stage: int) -> dict[str, float]:
    own = artifact.metrics()["evaluated"][str(stage)]["test"]
    return {column: own[column] for column in COLUMNS}
