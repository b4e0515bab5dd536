"""Every user's figures from predictions.parquet, and the differences of two methods on the same users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.metrics import Figures, placed_figures, sid_figures

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("user", "stage", "items", "rank", "position", "sharing")


@dataclass(frozen=True, eq=False)
class UserFigures:
    """The figures of one run (a method and a seed), user by user.

    Attributes:
        users: (n,) user ids; a user who was scored in several stages has a place for each.
        stages: (n,) the stage in which each was scored.
        figures: (n,) columns, `recall@K` and `ndcg@K` of semantic IDs, `item.recall@K` and `item.ndcg@K` of items.
    """

    users: NDArray[np.str_]
    stages: NDArray[np.int64]
    figures: Figures


@dataclass(frozen=True, eq=False)
class Differences:
    """A method's figures minus a baseline's on the same users.

    Attributes:
        users, stages: (n,) who was compared, in order of stage and user.
        figures: (seeds, n) differences by the name of the figure.
    """

    users: NDArray[np.str_]
    stages: NDArray[np.int64]
    figures: Figures


def per_user(predictions: Sequence[Path]) -> UserFigures:
    """Read the figures of every user of some stages of one run; their means are those of metrics.json.

    Args:
        predictions: the stages' predictions.parquet.

    Raises:
        InputError: a file lacks a column, holds nobody, or differs from the others in the length of its lists, or none
            is given.
        RunError: a file can't be read.
    """
    tables, top = _tables(predictions, _COLUMNS)
    columns = {name: _column(tables, name) for name in _COLUMNS[3:]}
    return UserFigures(_users(tables), _column(tables, "stage"), _figures(**columns, top=top))


def per_user_ranks(predictions: Sequence[Path], column: str) -> UserFigures:
    """Read the figures of semantic IDs of every user by one column of ranks, such as a hybrid has of each part.

    Raises:
        InputError, RunError: as `per_user`.
    """
    tables, top = _tables(predictions, (*_COLUMNS[:3], column))
    return UserFigures(_users(tables), _column(tables, "stage"), sid_figures(_column(tables, column), top))


def _tables(predictions: Sequence[Path], columns: Sequence[str]) -> tuple[list[pa.Table], int]:
    """Return the tables of predictions, and the length that all lists of recommendations have."""
    if not predictions:
        raise InputError("there are no predictions to compare")
    tables = {path: _read(path, columns) for path in predictions}
    lengths = {path: _list_length(path, table) for path, table in tables.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{path} has {length}" for path, length in lengths.items())
        raise InputError(f"lists of recommendations differ in length: {found}; choose stages of one decoding.top_k")
    return list(tables.values()), next(iter(lengths.values()))


def _users(tables: Sequence[pa.Table]) -> NDArray[np.str_]:
    return np.concatenate([np.array(table["user"].to_pylist(), dtype=np.str_) for table in tables])


def _column(tables: Sequence[pa.Table], name: str) -> NDArray[np.int64]:
    return np.concatenate([_numbers(table, name) for table in tables])


def paired(
    method: Mapping[int, UserFigures], baseline: Mapping[int, UserFigures], unequal_seeds: bool = False
) -> Differences:
    """Subtract a baseline's figures from a method's, user by user and seed by seed.

    Args:
        method: seed to the figures of that run.
        baseline: the same of what it is compared with.
        unequal_seeds: let the seeds differ. Whichever has fewer (the baseline, if neither has) is then averaged over
            its seeds, so that the differences don't hold how these vary.

    Raises:
        InputError: seeds, users or figures differ.
    """
    differ = set(method) != set(baseline)
    if not method or not baseline or (differ and not unequal_seeds):
        raise InputError(
            f"the method has seeds {_listed(method)} and the baseline {_listed(baseline)}; "
            "train the missing ones, or choose seeds that both have"
        )
    runs = {f"the method's seed {seed}": method[seed] for seed in sorted(method)}
    runs |= {f"the baseline's seed {seed}": baseline[seed] for seed in sorted(baseline)}
    (first, reference), *others = ((name, _in_order(name, run)) for name, run in runs.items())
    for name, run in others:
        _check_alike(first, reference, name, run)
    ordered = [reference, *(run for _, run in others)]
    ours, theirs = ordered[: len(method)], ordered[len(method) :]
    figures = {name: _subtract(_stack(ours, name), _stack(theirs, name), differ) for name in reference.figures}
    return Differences(reference.users, reference.stages, figures)


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        missing = [name for name in columns if name not in pq.read_schema(path).names]
        table = None if missing else pq.read_table(path, columns=list(columns))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    if table is None:
        raise InputError(f"{path}: has no column {', '.join(missing)}; it is of an older version, train the stage anew")
    if not len(table):
        raise InputError(f"{path}: holds no user")
    return table


def _list_length(path: Path, table: pa.Table) -> int:
    """Return the length that all lists of recommendations of a stage have."""
    import pyarrow.compute as pc

    lengths = pc.unique(pc.list_value_length(table["items"])).to_pylist()
    if len(lengths) != 1:
        raise RunError(f"{path}: its lists of recommendations differ in length ({_listed(lengths)})")
    return int(lengths[0])


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Return a column of whole numbers, with 0 where there is none."""
    return np.asarray(table[name].fill_null(0).to_numpy(), dtype=np.int64)


def _figures(rank: NDArray[np.int64], position: NDArray[np.int64], sharing: NDArray[np.int64], top: int) -> Figures:
    """Return the figures of users, of both kinds.

    Args:
        rank: (n,) of the target's semantic ID, 0 if missed.
        position: (n,) where its items begin in the expanded list, 0 if missed.
        sharing: (n,) how many they are.
        top: the length of the lists.
    """
    item = placed_figures(np.where(position > 0, position - 1, top), sharing, top)
    return {**sid_figures(rank, top), **{f"item.{name}": column for name, column in item.items()}}


def _in_order(name: str, run: UserFigures) -> UserFigures:
    """Return a run's figures in order of stage and user."""
    order = np.lexsort((run.users, run.stages))
    users, stages = run.users[order], run.stages[order]
    twice = int(((users[1:] == users[:-1]) & (stages[1:] == stages[:-1])).sum())
    if twice:
        raise InputError(f"{name} has {twice} users twice in a stage; give each stage once")
    return UserFigures(users, stages, {figure: column[order] for figure, column in run.figures.items()})


def _check_alike(first: str, reference: UserFigures, name: str, run: UserFigures) -> None:
    """Check that two runs scored the same users and have the same figures."""
    if not (np.array_equal(reference.users, run.users) and np.array_equal(reference.stages, run.stages)):
        one, other = (set(zip(r.stages.tolist(), r.users.tolist(), strict=True)) for r in (reference, run))
        raise InputError(
            f"{first} and {name} scored different users: {_counted(one - other)} only by the first, "
            f"{_counted(other - one)} only by the second, {len(one & other)} by both; compare runs of the same data "
            "on the same stages"
        )
    if set(reference.figures) != set(run.figures):
        odd = ", ".join(sorted(set(reference.figures) ^ set(run.figures)))
        raise InputError(f"only one of {first} and {name} has {odd}; compare runs of one decoding.top_k")


def _counted(pairs: set[tuple[int, str]]) -> str:
    """Return how many users there are, and of which stages."""
    stages = _listed({stage for stage, _ in pairs})
    return f"{len(pairs)} (of stages {stages})" if pairs else "0"


def _stack(runs: Sequence[UserFigures], name: str) -> NDArray[np.float64]:
    return np.stack([run.figures[name] for run in runs])


def _subtract(ours: NDArray[np.float64], theirs: NDArray[np.float64], averaged: bool) -> NDArray[np.float64]:
    """Subtract (seeds, n) figures seed by seed, or from the mean over seeds of whichever has fewer."""
    if averaged and len(ours) < len(theirs):
        ours = ours.mean(axis=0, keepdims=True)
    elif averaged:
        theirs = theirs.mean(axis=0, keepdims=True)
    return np.subtract(ours, theirs)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"
