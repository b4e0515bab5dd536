"""What a method forgets and carries forward: every stage's model on every stage's users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from peso_cli.data.examples import Split
from peso_cli.reports.averages import HIT, figure_names, unfilled
from peso_cli.reports.beside import last_of_each_kind
from peso_cli.reports.collected import Record
from peso_cli.reports.filling import scoring_gap
from peso_cli.reports.model import Cell, Column, Footnote, Row, Table, cell_of
from peso_cli.reports.selection import Group, Variant, shown_value

NEEDS = "any method trained beyond stage 1"

_DEFINITIONS = (
    "BWT, backward transfer: the mean over stages j before the last, T, of R(T, j) - R(j, j), where R(i, j) is the "
    "figure of the model after stage i on the test users of stage j; below 0 it has forgotten "
    "(Lopez-Paz and Ranzato, Gradient Episodic Memory, NeurIPS 2017, arXiv 1706.08840)",
    "FWT, forward transfer: the mean over stages j from 3 on of R(j - 1, j) - R(1, j). There, the second is the figure "
    "of a model that isn't trained at all; here it is the base's, so that FWT tells what the stages in between brought",
    "next stage: R(i, i + 1), what test users of the next stage get of a model that doesn't know it, by histories that "
    "do; its mean is over i from 2 on",
    "next event: the figure of the model after stage i on users' first events of stage i + 1, by nothing later than "
    "stage i (evaluation=next_stage); its mean is over i from 2 on",
)

_EACH = (Column("next stage"), Column("next event"))
"""What is shown beside the matrix for each model, and as a mean beside the transfers."""


@dataclass(frozen=True)
class _Matrix:
    """R(i, j) of one variant and seed; None where it isn't known."""

    group: Group
    variant: Variant
    seed: int
    name: str

    @property
    def stages(self) -> tuple[int, ...]:
        """All stages, 1 among them."""
        return (1, *self.group.stages)

    def record(self, stage: int) -> Record | None:
        """Return the model after a stage."""
        return (
            self.group.base_of(self.variant, self.seed) if stage == 1 else self.variant.records.get((self.seed, stage))
        )

    def at(self, model: int, users: int, split: Split = "test") -> float | None:
        """Return the figure of the model after a stage on the users of another, of the data that stage now has."""
        record, owner = self.record(model), self.record(users)
        if record is None or (owner is not None and owner.data != record.data_of(users)):
            return None
        value: float | None = record.metrics["evaluated"].get(str(users), {}).get(split, {}).get(self.name)
        return value

    def next(self, model: int) -> float | None:
        """Return the figure of the model after a stage on the test users of the next."""
        return self.at(model, model + 1)

    def event(self, model: int) -> float | None:
        """Return the figure of the model after a stage on the first events of the next."""
        return self.at(model, model + 1, "next")

    def backward(self) -> float | None:
        """Return the backward transfer."""
        last = self.stages[-1]
        return _mean([_difference(self.at(last, j), self.at(j, j)) for j in self.stages[:-1]])

    def forward(self) -> float | None:
        """Return the forward transfer; None with two stages."""
        return _mean([_difference(self.next(j - 1), self.at(1, j)) for j in self.stages[2:]])

    def ahead(self) -> float | None:
        """Return the mean figure on the next stage's test users; None with two stages."""
        return _mean([self.next(i) for i in self.stages[1:-1]])

    def events_ahead(self) -> float | None:
        """Return the mean figure on the next stage's first events; None with two stages."""
        return _mean([self.event(i) for i in self.stages[1:-1]])


def build(group: Group) -> list[Table]:
    """Return a table of all variants' transfers, then the matrix of each."""
    name = last_of_each_kind(figure_names(group))[-1]
    return [_transfers(group, name), *(_matrix(group, variant, name) for variant in group.variants)]


def _transfers(group: Group, name: str) -> Table:
    columns = (Column("BWT", "+.4f"), Column("FWT", "+.4f"), *_EACH)
    measures = (_Matrix.backward, _Matrix.forward, _Matrix.ahead, _Matrix.events_ahead)
    rows = [Row(v.name, tuple(_cell(group, v, name, measure) for measure in measures)) for v in group.variants]
    notes = tuple(Footnote(text) for text in (*_DEFINITIONS, HIT))
    table = Table(f"{group.title}: transfer, {name}", "method", columns, tuple(rows), notes)
    if any(cell.mean is None for row in rows for cell in row.cells):
        table = table.noting(Footnote("\N{EN DASH}: what fills it is named under the method's own table, below"))
    return table.marked()


def _matrix(group: Group, variant: Variant, name: str) -> Table:
    stages = (1, *group.stages)
    columns = [replace(column, better="none") for column in (*(Column(f"stage {stage}") for stage in stages), *_EACH)]
    rows = [Row(f"after stage {i}", tuple(_row(group, variant, name, i, stages))) for i in stages]
    notes = [*unfilled(group, [variant])]
    for seed in group.seeds:
        notes += _unscored(_Matrix(group, variant, seed, name))
    return Table(
        f"{group.title}: {variant.name}, {name} by users of", "model", tuple(columns), tuple(rows), tuple(notes)
    )


def _row(group: Group, variant: Variant, name: str, model: int, stages: Sequence[int]) -> Iterator[Cell]:
    for users in stages:
        yield _cell(group, variant, name, partial(_Matrix.at, model=model, users=users))
    yield _cell(group, variant, name, partial(_Matrix.next, model=model))
    yield _cell(group, variant, name, partial(_Matrix.event, model=model))


def _cell(group: Group, variant: Variant, name: str, measure: Callable[[_Matrix], float | None]) -> Cell:
    values = [measure(_Matrix(group, variant, seed, name)) for seed in group.seeds]
    return cell_of([value for value in values if value is not None], "not scored on these users, or not there")


def _unscored(matrix: _Matrix) -> Iterator[Footnote]:
    """Yield what trained stages weren't scored on, with the command that does it."""
    trained = [stage for stage in matrix.stages if stage == 1 or matrix.record(stage) is not None]
    if len(trained) == 1:
        return
    if lacking := [i for i in trained if any(matrix.at(i, j) is None for j in matrix.stages)]:
        yield _missing(matrix, lacking, "all stages' users", f"evaluation.on={shown_value(matrix.stages)}")
    if lacking := [i for i in trained if i != matrix.stages[-1] and matrix.event(i) is None]:
        yield _missing(matrix, lacking, "the first events of the next stage", "evaluation=next_stage")


def _missing(matrix: _Matrix, models: Sequence[int], on: str, word: str) -> Footnote:
    """Return what models weren't scored on; `word` is the setting that makes a command score them on it."""
    variant, seed = matrix.variant, matrix.seed
    gap = scoring_gap(variant.any, seed, str(models[0]) if len(models) == 1 else shown_value(models))
    text = f"missing: {variant.name}, seed {seed}, after stage {', '.join(map(str, models))} on {on}"
    return Footnote(text, replace(gap, words=(*gap.words, word)))


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
