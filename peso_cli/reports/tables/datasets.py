"""What each stage of a dataset holds (the paper's Table 10), of the very data that finished stages rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from peso_cli.data.blocks import Dataset
from peso_cli.data.statistics import stage_statistics, total_statistics
from peso_cli.errors import InputError
from peso_cli.reports import published
from peso_cli.reports.collected import Record
from peso_cli.reports.model import Cell, Column, Footnote, Row, Table, cell_of
from peso_cli.reports.opened import open_data, same_data
from peso_cli.reports.selection import Group

NEEDS = "any method trained beyond stage 1"

_FORMS = {
    "users": ",.0f",
    "new_users": ",.0f",
    "items": ",.0f",
    "new_items": ",.0f",
    "interactions": ",.0f",
    "mean_length": ".2f",
    "sparsity": ".4f",
}
"""The figures of a stage, and how each is written."""

Figures = Mapping[str, float | None]


def build(group: Group) -> list[Table]:
    """Return the table of a group's dataset: a row for each stage whose data is still that of a finished stage."""
    records = _by_stage(group)
    dataset, notes = _open(records)
    found, left_out = _figures(dataset, records) if dataset else ({}, [])
    columns = tuple(Column(name.replace("_", " "), form, "none") for name, form in _FORMS.items())
    rows = tuple(Row(stage, tuple(_cell(figures.get(name)) for name in _FORMS)) for stage, figures in found.items())
    table = Table(f"{group.dataset}: the data by stage", "stage", columns, rows, (*notes, *left_out))
    return [_beside_published(table, group.dataset).noting(*_notes(group, records))]


def _by_stage(group: Group) -> dict[int, Record]:
    """Return a record of each stage; that of stage 1 is one that the others began from."""
    later = [record for variant in group.variants for record in variant.records.values()]
    parents = {record.parent for record in later if record.place.stage == 2}
    records = [*(base for base in group.bases if base.fingerprint in parents), *later]
    first = {record.place.stage: record for record in reversed(records)}
    return dict(sorted(first.items()))


def _open(records: Mapping[int, Record]) -> tuple[Dataset | None, list[Footnote]]:
    """Open the data by the settings of any record; also return why it couldn't be opened by others."""
    notes: list[Footnote] = []
    for record in records.values():
        try:
            return open_data(record), notes
        except InputError as error:
            notes.append(Footnote(f"no stage is shown by the settings of {record.folder}: {error}"))
    return None, list(dict.fromkeys(notes))


def _figures(dataset: Dataset, records: Mapping[int, Record]) -> tuple[dict[str, Figures], list[Footnote]]:
    """Return the figures of the stages that are what they were, `all` beside them where all are; and what is left out.

    Which items are new depends on all stages before, and isn't told where one of these isn't what it was.
    """
    reasons = {stage: _reason(dataset, stage, records.get(stage)) for stage in range(1, dataset.stages + 1)}
    notes = [Footnote(f"stage {stage} is left out: {reason}") for stage, reason in reasons.items() if reason]
    try:
        rows = {row.stage: row for row in stage_statistics(dataset)} if len(notes) < len(reasons) else {}
        total = asdict(total_statistics(dataset)) if not notes else {}
    except InputError as error:
        return {}, [Footnote(f"no stage is shown: {error}")]
    changed = min((stage for stage, reason in reasons.items() if reason), default=dataset.stages + 1)
    sound = [row if stage < changed else replace(row, new_items=None) for stage, row in rows.items()]
    found = {f"D{row.stage}": asdict(row) for row in sound if not reasons[row.stage]}
    return {**found, **({"all": total} if total else {})}, notes


def _reason(dataset: Dataset, stage: int, record: Record | None) -> str:
    """Tell why a stage's figures can't be shown; empty where they can."""
    if record is None:
        return "no finished stage rests on it"
    try:
        same = same_data(dataset, record)
    except InputError as error:
        return str(error)
    return "" if same else f"the data are no longer those on which {record.folder} was trained"


def _cell(value: float | None) -> Cell:
    return cell_of([] if value is None else [value], "unknown")


def _beside_published(table: Table, dataset: str) -> Table:
    """Return the table with the published figures, where the paper has the dataset."""
    name = published.published_name(dataset)
    if name is None:
        return table
    columns = [Column(f"{c.name} (paper)", c.form, "none") for c in table.columns]
    rows: list[Sequence[Cell]] = [
        [_cell(published.dataset_figure(name, row.name, figure)) for figure in _FORMS] for row in table.rows
    ]
    return table.beside(columns, rows)


def _notes(group: Group, records: Mapping[int, Record]) -> Iterator[Footnote]:
    if group.mixed:
        yield Footnote(f"runs on other data are left out: {group.mixed}")
    most = next(iter(records.values())).settings.get("dataset.sample_users")
    if most is not None:
        yield Footnote(f"a sample: at most {most:,} users of each stage take part (dataset.sample_users)")
