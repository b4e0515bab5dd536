"""`peso recommend`: the best next items for one user or one history."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.blocks import Dataset
from peso_cli.errors import InputError, nearest
from peso_cli.learners import learner_of
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.stages import Run, open_run, wanted_stages
from peso_cli.terminal import OUT, TerminalDisplay


def recommend(composed: Composed, user: str | None, history: str | None, k: int, as_json: bool) -> None:
    """Print the k best next items, with titles where known and scores.

    Args:
        composed: says which stage's model recommends.
        user: a user of the dataset, whose events up to the stage are the history, or
        history: item ids given by hand, oldest first, separated by commas.
        k: how many items.
        as_json: print a JSON document instead of a table.

    Raises:
        InputError: the user or an item is unknown, not just one of both is given, or the stage isn't trained.
    """
    if (user is None) == (history is None):
        raise InputError("give either --user USER or --history ITEM,ITEM,...")
    run = open_run(composed)
    (stage,) = _single(wanted_stages(composed.config.stage, run.dataset))
    events = _of_user(run.dataset, user, stage) if user is not None else _by_hand(run.dataset.catalog, history or "")
    rows = _rank(run, stage, user, events[-composed.config.prompt.window :], k)
    if as_json:
        print_json({"user": user, "history": [run.dataset.catalog.items[i] for i in events], "items": rows})
        return
    OUT.print(_table(run, stage, user, rows))


def _single(stages: tuple[int, ...]) -> tuple[int, ...]:
    if len(stages) > 1:
        raise InputError(f"stage={list(stages)}: recommend takes one stage")
    return stages


def _of_user(dataset: Dataset, user: str, stage: int) -> NDArray[np.int32]:
    """Return all events of a user up to a stage, from the newest block that has the user."""
    for s in range(stage, 0, -1):
        if dataset.has(s) and user in (users := dataset.block(s).users):
            block, row = dataset.block(s), users.index(user)
            return block.events[block.starts[row] : block.starts[row + 1]]
    examples = ", ".join(dataset.block(stage).users[:3])
    raise InputError(f"--user {user}: no such user in stages 1 to {stage} of {dataset.name}; there are {examples}, ...")


def _by_hand(catalog: Catalog, history: str) -> NDArray[np.int32]:
    items = [item.strip() for item in history.split(",") if item.strip()]
    for item in items:
        if item not in catalog.position:
            raise InputError(f"--history: item {item!r} is not in the catalog{nearest(item, catalog.items)}")
    return np.array([catalog.position[item] for item in items], dtype=np.int32)


def _rank(run: Run, stage: int, user: str | None, history: NDArray[np.int32], k: int) -> list[dict[str, Any]]:
    from peso_cli.evaluation.protocol import check_length

    catalog = run.dataset.catalog_at(stage)
    check_length(run.config, catalog, k)
    lineage = run.require(stage)
    with TerminalDisplay():
        ranking = learner_of(run.config).open_ranker(run.config, run.dataset, lineage).rank([history], k, names=[user])
    lists = ranking.rows if ranking.items is None else ranking.items
    rows: list[dict[str, Any]] = []
    for found, score in zip(lists[0].tolist(), ranking.scores[0].tolist(), strict=True):
        for item in (
            np.flatnonzero(catalog.sid_of == found).tolist() if ranking.items is None else [found] * (found >= 0)
        ):
            name = catalog.items[item]
            row = {"item": name, "title": catalog.titles.get(name), "sid": catalog.sid_text(item)}
            rows.append({**row, "score": score})
    return rows[:k]


def _table(run: Run, stage: int, user: str | None, rows: list[dict[str, Any]]) -> Table:
    whom = f"user {user}" if user is not None else "the history given"
    table = Table(title=f"{run.config.method.name} after stage {stage}, for {whom}", title_justify="left")
    for column in ("", "item", "title", "semantic ID", "score"):
        table.add_column(column, justify="right" if column in ("", "score") else "left")
    for place, row in enumerate(rows, start=1):
        table.add_row(str(place), row["item"], row["title"] or "-", row["sid"], f"{row['score']:.4f}")
    return table
