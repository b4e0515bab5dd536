"""How the data move: each stage against the one before."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from peso_cli.errors import InputError
from peso_cli.reports.page import tables
from peso_cli.reports.page.html import Html, tag
from peso_cli.reports.page.section import Section, Subject

TITLE = "Drift"
_NOTE = (
    "popularity, transitions: recall@10 / ndcg@10 of a stage's test targets, foretold by the training targets of the "
    "stage before; own: by its own"
)


def build(subject: Subject) -> Section:
    """Return the section of a group; without tables where the dataset can't be opened."""
    from peso_cli.data.drift import drift

    command = shlex.join(["peso", "data", "drift", *_dataset(subject)])
    try:
        rows = [asdict(row) for row in drift(subject.dataset)]
    except InputError as error:
        lead = f"How the data move from stage to stage is left out, for they can't be opened: {error}."
        return Section(lead, (), (command,))
    notes = tag(
        "ul", {"class": "notes"}, tag("li", {}, _NOTE), tag("li", {}, "shift: Jensen-Shannon divergence, in bits")
    )
    return Section(_lead(rows), (_table(subject.group.dataset, rows), notes), (command,))


def _dataset(subject: Subject) -> list[str]:
    """Return the words that name the dataset on a command line."""
    from peso_cli.reports.filling import train_command

    record = subject.newest
    words = shlex.split(str(train_command(record, record.place.seed, record.place.stage)))
    return [word for word in words if word.startswith(("dataset=", "dataset.", "--config-dir", "FOLDER"))]


def _lead(rows: Sequence[Mapping[str, Any]]) -> str:
    lead = "How far each stage has moved from the one before, by the stages' own events."
    shares = [row["new_item_share"] for row in rows if row["new_item_share"] is not None]
    shifts = [row["popularity_shift"] for row in rows if row["popularity_shift"] is not None]
    if not shares or not shifts:
        return lead
    mean_share, mean_shift = 100 * sum(shares) / len(shares), sum(shifts) / len(shifts)
    return f"{lead} On average {mean_share:.0f} % of a stage's events are on items new in it, and popularity shifts by \
{mean_shift:.2f} bits."


def _table(dataset: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    from peso_cli.data.drift import StageDrift

    names = [field.name for field in fields(StageDrift) if field.name != "stage"]
    body = [[name.replace("_", " "), *(_cell(row[name]) for row in rows)] for name in names]
    heads = ["", *(f"stage {row['stage']}" for row in rows)]
    return tables.grid(f"{dataset}: each stage against the one before", heads, body, "figures")


def _cell(value: float | Mapping[str, float] | None) -> str:
    match value:
        case None:
            return "unknown"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4f}"
    return " / ".join(_cell(figure) for figure in value.values())
