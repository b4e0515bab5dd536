"""`peso data stats`, `examples`, `drift` and `export`: what a dataset holds, how it moves, and where it may go."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from peso_cli.characters import json_text
from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.examples import Split, examples
from peso_cli.data.open import open_dataset
from peso_cli.data.released import write_released
from peso_cli.data.statistics import StageStatistics, TotalStatistics, stage_statistics, total_statistics
from peso_cli.errors import InputError
from peso_cli.terminal import OUT

_FIGURES = ("users", "new_users", "items", "new_items", "interactions", "mean_length", "sparsity")
_EXAMPLES = ("train", "valid", "test", "users_without_examples")


def stats(composed: Composed, as_json: bool) -> None:
    """Print the figures of the paper's dataset table for every stage; what can't be known is shown as unknown.

    Raises:
        InputError: the data isn't there or is broken.
    """
    dataset = open_dataset(composed.config.dataset)
    stages, total = stage_statistics(dataset), total_statistics(dataset)
    if as_json:
        rows = [dataclasses.asdict(stage) for stage in stages]
        print_json({"dataset": dataset.name, "stages": rows, "total": dataclasses.asdict(total)})
        return
    OUT.print(_table(dataset.name, stages, total))
    catalog = dataset.catalog
    OUT.print(
        f"catalog: {len(catalog.items):,} items, {catalog.levels} levels of {list(catalog.level_sizes)} codes, "
        f"{len(catalog.sids):,} distinct semantic IDs, {len(catalog.titles):,} titles",
        markup=False,
    )
    _tell_of_sample(composed)


def _tell_of_sample(composed: Composed) -> None:
    most = getattr(composed.config.dataset, "sample_users", None)
    if most is not None:
        OUT.print(f"a sample: at most {most:,} users of each stage take part (dataset.sample_users)", markup=False)


def _table(name: str, stages: list[StageStatistics], total: TotalStatistics) -> Table:
    """Return one column for each stage, for the figures outnumber the stages."""
    table = Table(title=name, title_justify="left")
    table.add_column("")
    for heading in (*(f"D{stage.stage}" for stage in stages), "all"):
        table.add_column(heading, justify="right")
    whole = dataclasses.asdict(total)
    for figure in (*_FIGURES, *_EXAMPLES):
        last = _number(whole[figure]) if figure in whole else ""
        table.add_row(figure.replace("_", " "), *(_cell(stage, figure) for stage in stages), last)
    return table


def _cell(stage: StageStatistics, name: str) -> str:
    return _number(getattr(stage, name), 4 if name == "sparsity" else 2)


def _number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def print_examples(composed: Composed, stage: int, split: Split, user: str | None) -> None:
    """Print the examples of one stage and split as JSON lines of user, history and target.

    Raises:
        InputError: the stage or the user isn't there, or the data is broken.
    """
    dataset = open_dataset(composed.config.dataset)
    block = dataset.block(stage)
    if user is not None and user not in block.users:
        raise InputError(f"--user {user}: no such user in stage {stage}; there are {', '.join(block.users[:3])}, ...")
    chosen, items = examples(block, split, composed.config.prompt.window), dataset.catalog.items
    for row, (owner, target) in enumerate(zip(chosen.user, chosen.target_items, strict=True)):
        if user is None or block.users[owner] == user:
            history = [items[item] for item in chosen.history(row)]
            line = {"user": block.users[owner], "history": history, "target": items[target]}
            sys.stdout.write(json_text(line) + "\n")


def drift(composed: Composed, as_json: bool) -> None:
    """Print how far each stage has moved from the one before; what can't be known is shown as unknown.

    Raises:
        InputError: the data isn't there or is broken.
    """
    from peso_cli.data.drift import TOP, StageDrift
    from peso_cli.data.drift import drift as measure

    dataset = open_dataset(composed.config.dataset)
    rows = [dataclasses.asdict(row) for row in measure(dataset)]
    if as_json:
        print_json({"dataset": dataset.name, "stages": rows})
        return
    figures = [field.name for field in dataclasses.fields(StageDrift) if field.name != "stage"]
    OUT.print(_drift_table(dataset.name, figures, rows))
    OUT.print(
        f"popularity and transitions: recall@{TOP} / ndcg@{TOP} of the stage's test targets, foretold by the training "
        "targets of the stage before; own: by its own",
        markup=False,
    )
    _tell_of_sample(composed)


def _drift_table(name: str, figures: list[str], rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"{name}: each stage against the one before", title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(f"D{row['stage']}", justify="right")
    for figure in figures:
        table.add_row(figure.replace("_", " "), *(_drift_cell(row[figure]) for row in rows))
    return table


def _drift_cell(value: float | dict[str, float] | None) -> str:
    if isinstance(value, dict):
        return " / ".join(_number(figure, 4) for figure in value.values())
    return _number(value, 4)


def export(composed: Composed, folder: Path, as_json: bool) -> None:
    """Write a dataset in the released JSON layout and print what was written.

    Raises:
        InputError: the data isn't there or is broken, or the folder holds a dataset already.
    """
    dataset = open_dataset(composed.config.dataset)
    write_released(dataset, folder, dataset.name)
    stages = [stage for stage in range(1, dataset.stages + 1) if dataset.has(stage)]
    settings = ["dataset=released", f"dataset.name={dataset.name}", f"dataset.path={folder}"]
    settings += [f"dataset.catalog={dataset.about.get('recommended', 'all')}"]
    if as_json:
        print_json({"dataset": dataset.name, "folder": str(folder), "stages": stages, "settings": settings})
        return
    OUT.print(f"{folder}: stages {', '.join(map(str, stages))}; to use it: {shlex.join(settings)}", markup=False)
