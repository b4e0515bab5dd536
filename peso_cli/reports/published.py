"""The published figures of PESO (arXiv 2510.25093), kept as package data."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def _document() -> dict[str, Any]:
    text = files("peso_cli.reports").joinpath("published.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def published_name(dataset: str) -> str | None:
    """Return what the paper's tables call a dataset of ours, None where they don't have it."""
    name: str | None = _document()["datasets"].get(dataset)
    return name


def published_datasets() -> tuple[str, ...]:
    """Return the datasets of the paper's tables, by their names there."""
    return tuple(_document()["datasets"].values())


def published_methods(table: str) -> tuple[str, ...]:
    """Return the methods of a published table, in its order."""
    return tuple(_document()["tables"][table]["rows"])


def figure(table: str, method: str, dataset: str, metric: str) -> float | None:
    """Return a published figure, None where the paper doesn't give it.

    Args:
        table: `main`, `cumulative`, `groups` or `two_tower`.
        method: a method's name here.
        dataset: one of `published_datasets()`.
        metric: `recall@5`, `ndcg@10`, ...; in `groups` with the group before it, as in `new.ndcg@5`.
    """
    found = _document()["tables"][table]
    column, row = f"{dataset}.{metric}", found["rows"].get(method)
    return float(row[found["columns"].index(column)]) if row and column in found["columns"] else None


def dataset_figure(dataset: str, stage: str, name: str) -> float | None:
    """Return a figure of the published dataset table, None where the paper doesn't give it.

    Args:
        dataset: one of `published_datasets()`.
        stage: `D1`, `D2`, ..., or `all` for all stages together.
        name: `users`, `new_users`, `items`, `new_items`, `interactions`, `mean_length` or `sparsity`.
    """
    table = _document()["dataset_table"]
    row = table[dataset].get(stage, {})
    figures = row if isinstance(row, dict) else dict(zip(table["columns"], row, strict=True))
    return float(figures[name]) if name in figures else None


def regularizer_places() -> dict[str, int]:
    """Return the published order of the regularizers: each one's place, 1 for the best; some share one."""
    order = _document()["regularizers"]["order"]
    places = [[entry] if isinstance(entry, str) else entry for entry in order]
    return {name: place for place, names in enumerate(places, start=1) for name in names}
