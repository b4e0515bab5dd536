"""`peso data stats` and `peso data examples`: what a dataset holds."""

from __future__ import annotations

import dataclasses
import json
import sys

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.examples import Split, examples
from peso_cli.data.open import open_dataset
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
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
