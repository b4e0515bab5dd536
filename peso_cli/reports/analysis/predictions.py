"""predictions.parquet as arrays: what each user was recommended, and where the target was in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.groups import GROUPS
from peso_cli.evaluation.metrics import Figures, placed_figures

if TYPE_CHECKING:
    import pyarrow as pa

_MAY_LACK = ("rank", "position")
"""Columns in which nothing stands for a target that was missed."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a finished stage recommended to its own test users, in the order in which they were scored.

    Attributes:
        users, groups, targets: (n,) ids of users, their groups, ids of their targets.
        items: (n, K) ids of recommended items, best first; None where no item is.
        scores: (n, K) their scores.
        ranks: (n,) 1-based rank of the target's semantic ID, 0 if missed.
        positions: (n,) 1-based position where the items that share it begin, 0 if missed.
        sharing: (n,) how many these are.
        history_lengths: (n,) items that the model read.
    """

    users: NDArray[np.object_]
    groups: NDArray[np.object_]
    targets: NDArray[np.object_]
    items: NDArray[np.object_]
    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]
    positions: NDArray[np.int64]
    sharing: NDArray[np.int64]
    history_lengths: NDArray[np.int64]

    def figures(self, k: int) -> Figures:
        """Return (n,) columns `recall@k` and `ndcg@k` of items, in expectation over those that share a semantic ID."""
        found = placed_figures(np.where(self.positions > 0, self.positions - 1, k), self.sharing, k)
        return {name: found[name] for name in (f"recall@{k}", f"ndcg@{k}")}


def read_predictions(path: Path) -> Predictions:
    """Read the predictions of a stage.

    Raises:
        InputError: the file lacks a column or holds nobody.
        RunError: it can't be read, or is damaged.
    """
    import pyarrow as pa

    try:
        table = _table(path)
        lists = {name: _square(table[name]) for name in ("items", "scores")}
        plain = {name: table[name].to_numpy() for name in ("user", "group", "target")}
        whole = {name: _numbers(table[name]) for name in ("rank", "position", "sharing", "history_length")}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RunError(f"{path}: can't be read ({str(error).splitlines()[0]})") from None
    if (whole["sharing"] < 1).any() or any((column < 0).any() for column in whole.values()):
        raise RunError(f"{path}: is damaged (a rank, a position or a length is less than there can be)")
    if np.isnan(lists["scores"]).any():
        raise RunError(f"{path}: is damaged (a score is no number)")
    if unknown := set(plain["group"]) - set(GROUPS):
        raise RunError(f"{path}: is damaged ({min(unknown)!r} is no group of users)")
    return Predictions(
        users=plain["user"],
        groups=plain["group"],
        targets=plain["target"],
        items=lists["items"],
        scores=lists["scores"].astype(np.float64),
        ranks=whole["rank"],
        positions=whole["position"],
        sharing=whole["sharing"],
        history_lengths=whole["history_length"],
    )


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    if missing := [name for name in schema.names if name not in pq.read_schema(path).names]:
        raise InputError(f"{path}: has no column {', '.join(missing)}; it is of an older version, train the stage anew")
    table = pq.read_table(path, columns=schema.names).cast(schema).combine_chunks()
    if not len(table):
        raise InputError(f"{path}: holds no user")
    if lacking := [name for name in schema.names if name not in _MAY_LACK and table[name].null_count]:
        raise pa.ArrowInvalid(f"column {lacking[0]} lacks values")
    return table


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts, numbers = ("user", "group", "target"), ("rank", "position", "sharing", "history_length")
    lists = {"items": pa.list_(pa.string()), "scores": pa.list_(pa.float32())}
    return pa.schema({**dict.fromkeys(texts, pa.string()), **dict.fromkeys(numbers, pa.int64()), **lists})


def _square(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return (n, K) a column of lists that have one length."""
    import pyarrow.compute as pc

    flat = pc.list_flatten(column).to_numpy()
    if not len(flat) or pc.any(pc.not_equal(pc.list_value_length(column), len(flat) // len(column))).as_py():
        raise ValueError("its lists of recommendations differ in length, or are empty")
    return np.asarray(flat).reshape(len(column), -1)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.fill_null(0).to_numpy(), dtype=np.int64)
