"""`peso recommend`: the best next items for one user or one history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.blocks import Dataset
from peso_cli.errors import InputError, nearest
from peso_cli.evaluation.protocol import check_length
from peso_cli.learners import AnyRanker, learner_of
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.stages import Run, open_run, wanted_stages
from peso_cli.terminal import OUT, TerminalDisplay

if TYPE_CHECKING:
    from peso_cli.decoding.leave_one_out import LeftOut


_LONGEST = 48
"""Characters of the title of an item of the history."""


def recommend(
    composed: Composed, user: str | None, history: str | None, k: int, as_json: bool, strongest: int | None = None
) -> None:
    """Print the k best next items, with titles where known and scores.

    Args:
        composed: says which stage's model recommends.
        user: a user of the dataset, whose events up to the stage are the history, or
        history: item ids given by hand, oldest first, separated by commas.
        k: how many items.
        as_json: print a JSON document instead of a table.
        strongest: how many items of the history to show that carried each recommendation most; None for none.

    Raises:
        InputError: the user or an item is unknown, not just one of both is given, the stage isn't trained, or it is
            asked why of a model that doesn't read the history.
    """
    if (user is None) == (history is None):
        raise InputError("give either --user USER or --history ITEM,ITEM,...")
    run = open_run(composed)
    (stage,) = _single(wanted_stages(composed.config.stage, run.dataset))
    events = _of_user(run.dataset, user, stage) if user is not None else _by_hand(run.dataset.catalog, history or "")
    read = events[-composed.config.prompt.window :]
    catalog = run.dataset.catalog_at(stage)
    check_length(run.config, catalog, k)
    lineage = run.require(stage)
    with TerminalDisplay():
        ranker = learner_of(run.config).open_ranker(run.config, run.dataset, lineage)
        rows = _rank(ranker, catalog, user, read, k)
        why = None if strongest is None else _why(ranker, catalog, user, read, rows, strongest)
    if as_json:
        asked = {} if why is None else {"tokens_read": why.tokens, "tokens_alone": why.alone}
        print_json({"user": user, "history": [catalog.items[i] for i in events], "items": rows, **asked})
        return
    OUT.print(_table(run, stage, user, rows))
    if why is not None:
        OUT.print(_told(why), markup=False)


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


def _rank(
    ranker: AnyRanker, catalog: Catalog, user: str | None, history: NDArray[np.int32], k: int
) -> list[dict[str, Any]]:
    ranking = ranker.rank([history], k, names=[user])
    lists = ranking.rows if ranking.items is None else ranking.items
    rows: list[dict[str, Any]] = []
    for found, score in zip(lists[0].tolist(), ranking.scores[0].tolist(), strict=True):
        for item in (
            np.flatnonzero(catalog.sid_of == found).tolist() if ranking.items is None else [found] * (found >= 0)
        ):
            rows.append({**_named(catalog, item), "sid": catalog.sid_text(item), "score": score})
    return rows[:k]


def _named(catalog: Catalog, item: int) -> dict[str, Any]:
    name = catalog.items[item]
    return {"item": name, "title": catalog.titles.get(name)}


def _why(
    ranker: AnyRanker,
    catalog: Catalog,
    user: str | None,
    history: NDArray[np.int32],
    rows: list[dict[str, Any]],
    strongest: int,
) -> LeftOut:
    """Add to each row the items of the history that move its score most when they are left out, the strongest first."""
    candidates = np.array([catalog.position[row["item"]] for row in rows], dtype=np.int64)
    found = ranker.leave_one_out(history, candidates, user)
    for candidate, row in enumerate(rows):
        row["why"] = [
            {**_named(catalog, int(history[place])), "place": place + 1, "contribution": contribution}
            for place, contribution in found.strongest(candidate, strongest)
        ]
    return found


def _table(run: Run, stage: int, user: str | None, rows: list[dict[str, Any]]) -> Table:
    whom = f"user {user}" if user is not None else "the history given"
    table = Table(title=f"{run.config.method.name} after stage {stage}, for {whom}", title_justify="left")
    why = ["why"] if any("why" in row for row in rows) else []
    for column in ("", "item", "title", "semantic ID", "score", *why):
        table.add_column(column, justify="right" if column in ("", "score") else "left")
    for place, row in enumerate(rows, start=1):
        carried = [_carried(row["why"])] if why else []
        table.add_row(str(place), row["item"], row["title"] or "-", row["sid"], f"{row['score']:.4f}", *carried)
    return table


def _carried(items: list[dict[str, Any]]) -> str:
    """Return a line for each item of a history, with what it adds to a score."""
    return "\n".join(f"{each['contribution']:+.4f} {_short(each['title'] or each['item'])}" for each in items) or "-"


def _short(text: str) -> str:
    """Return a text on one line, the end of a long one left out."""
    line = " ".join(text[: 2 * _LONGEST].split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}\N{HORIZONTAL ELLIPSIS}"


def _told(why: LeftOut) -> str:
    """Say what contributions are, and what they cost."""
    of = "log-likelihood of the semantic ID" if why.tokens else "score"
    told = f"why: how far the {of} falls when that item of the history is left out; below 0 it spoke against it."
    if not why.tokens:
        return told
    return f"{told} {why.tokens:,} tokens were read, of {why.alone:,} that all histories with all items have."
