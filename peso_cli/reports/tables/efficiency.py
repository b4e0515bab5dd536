"""What a method costs: parameters trained, bytes kept, seconds and memory taken."""

from __future__ import annotations

from collections.abc import Iterator

from peso_cli.reports.averages import NOT_RECORDED, Take, compared
from peso_cli.reports.collected import Record
from peso_cli.reports.model import Column, Footnote, Table
from peso_cli.reports.selection import Group

NEEDS = "any method trained beyond stage 1"


def build(group: Group) -> list[Table]:
    """Return the table of a group."""
    ends = dict.fromkeys((group.stages[0], group.stages[-1]))
    takes: dict[Column, Take] = {
        Column("trained parameters", ",.0f", "none"): _parameters,
        **{Column(f"bytes, stage {s}", ",.0f", "lowest"): _at(s, _bytes) for s in ends},
        Column("training s", ".1f", "lowest"): _seconds("train"),
        Column("scoring s", ".1f", "lowest"): _seconds("evaluate"),
        Column("peak bytes", ",.0f", "lowest"): _peak,
    }
    table = compared(group, "cost", takes).noting(
        Footnote("bytes: all that a stage keeps of what it learnt, for scoring and for the stages to come"),
        Footnote("seconds: as they were on the machine of each run, alone or not; compare only what ran alike"),
        Footnote("peak bytes: most memory while a stage trained, on a CPU of the whole process, on a GPU of tensors"),
    )
    return [table.noting(*_unrecorded(table))]


def _at(stage: int, take: Take) -> Take:
    return lambda record: take(record) if record.place.stage == stage else None


def _parameters(record: Record) -> float | None:
    """Return how many parameters a stage trained: none where nothing was trained."""
    training = record.metrics.get("training", {})
    return 0 if training is None else training.get("trained_parameters")


def _bytes(record: Record) -> float | None:
    value: float | None = record.metrics.get("stored_bytes")
    return value


def _peak(record: Record) -> float | None:
    value: float | None = record.metrics.get("peak_bytes")
    return value


def _seconds(what: str) -> Take:
    return lambda record: record.metrics.get("seconds", {}).get(what)


def _unrecorded(table: Table) -> Iterator[Footnote]:
    rows = [row.name for row in table.rows if any(cell.missing == NOT_RECORDED for cell in row.cells)]
    if rows:
        yield Footnote(f"not recorded when it was trained: {', '.join(rows)}; a run into another output= records it")
