"""What sections are made from: predictions and data of the runs of a group, each read once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.blocks import Dataset
from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.metrics import Figures
from peso_cli.reports.analysis.facts import Facts, facts_of
from peso_cli.reports.analysis.measures import exposure
from peso_cli.reports.analysis.predictions import Predictions, read_predictions
from peso_cli.reports.averages import Take
from peso_cli.reports.collected import Record
from peso_cli.reports.opened import open_data, same_data
from peso_cli.reports.selection import Group

T = TypeVar("T")

_MOST = 10
"""The K of Recall@K and NDCG@K, unless lists are shorter."""


def once(of: Callable[[Record], T]) -> Callable[[Record], T]:
    """Return a function of records that works out each answer once."""
    known: dict[Path, T] = {}

    def answer(record: Record) -> T:
        if record.folder not in known:
            known[record.folder] = of(record)
        return known[record.folder]

    return answer


class Evidence:
    """The runs of a group with what they recommended, and to whom.

    Predictions are those of the protocol with which a stage was trained; of any other none are kept. What is of users
    is in the order of `predictions`.

    Attributes:
        group: the runs.
        predictions: a record's; raises InputError for a file of an older version, RunError for a damaged one.
        figures: `recall@k` and `ndcg@k` of items of a record's users; raises as `predictions`.
        facts: what the data say of them; raises InputError where these can't be opened, or aren't what they were, and
            RunError where the predictions are of other users or targets.
        listed: (n, k) catalog indices of what was recommended, -1 where no item is; raises as `facts`.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._datasets: dict[Any, Dataset] = {}
        self._facts: dict[Any, Facts] = {}
        self.predictions: Callable[[Record], Predictions] = once(_predictions)
        self.figures: Callable[[Record], Figures] = once(lambda record: self.predictions(record).figures(self.k))
        self.facts: Callable[[Record], Facts] = once(self._facts_of)
        self.listed: Callable[[Record], NDArray[np.int64]] = once(self._listed)

    @cached_property
    def k(self) -> int:
        """The length at which all lists are looked at."""
        lengths = (int(r.protocol.get("top_k", _MOST)) for v in self.group.variants for r in v.records.values())
        return max(1, min(_MOST, *lengths))

    @property
    def names(self) -> tuple[str, str]:
        """The names of the figures of users."""
        return f"recall@{self.k}", f"ndcg@{self.k}"

    def taking(self, take: Callable[[Record], float]) -> Take:
        """Return what takes a figure of a record from its predictions; None where it has none, or it isn't a number."""

        def taken(record: Record) -> float | None:
            value = take(record) if record.own else np.nan
            return None if np.isnan(value) else float(value)

        return taken

    def exposure(self, record: Record) -> NDArray[np.float64]:
        """Return (visible items,) how often each item is within the first k of a user; raises as `facts`."""
        return exposure(self.listed(record), self.facts(record).catalog, self.by_semantic_id(record))

    @staticmethod
    def by_semantic_id(record: Record) -> bool:
        """Tell whether a run recommends semantic IDs by their log-probabilities, not items by scores of any kind.

        A hybrid's protocol has both what of a search and what of a two-tower model matters; it ranks items.
        """
        return "normalise" in record.protocol and "seen" not in record.protocol

    def _facts_of(self, record: Record) -> Facts:
        settings = tuple((key, repr(value)) for key, value in record.settings.items() if key.startswith("dataset."))
        stage = record.place.stage
        if settings not in self._datasets:
            self._datasets[settings] = open_data(record)
        dataset = self._datasets[settings]
        if not same_data(dataset, record):
            raise InputError(f"the data of {dataset.name} are no longer those on which {record.folder} was trained")
        if (settings, stage) not in self._facts:
            self._facts[settings, stage] = facts_of(dataset, stage)
        _check(self.predictions(record), self._facts[settings, stage], record)
        return self._facts[settings, stage]

    def _listed(self, record: Record) -> NDArray[np.int64]:
        import pyarrow as pa
        import pyarrow.compute as pc

        catalog, items = self.facts(record).catalog, self.predictions(record).items[:, : self.k]
        place = pc.index_in(pa.array(items.reshape(-1), pa.string()), pa.array(catalog.items), skip_nulls=True)
        return np.asarray(place.fill_null(-1).to_numpy(), dtype=np.int64).reshape(items.shape)


def _predictions(record: Record) -> Predictions:
    return read_predictions(record.folder / "predictions.parquet")


def _check(found: Predictions, facts: Facts, record: Record) -> None:
    targets = np.array(facts.catalog.items, dtype=object)[facts.targets]
    if not (np.array_equal(found.users, facts.users) and np.array_equal(found.targets, targets)):
        raise RunError(f"{record.folder / 'predictions.parquet'}: is of other users than stage {record.place.stage}")
