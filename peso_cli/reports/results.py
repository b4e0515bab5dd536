"""Tables of results for the terminal, made from the figures in metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Row = tuple[str, str, Mapping[str, Any]]
"""The stage, who recommends, and the figures."""

_OF_HYBRIDS = {"generative": "generative alone", "two_tower": "two-tower alone", "oracle": "oracle union"}
"""What a hybrid's summary also holds, in words."""


def figure_columns(*summaries: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the figures that a table of some summaries shows: at each K above 1, and at 1 for one that has no other.

    Args:
        summaries: figures by name (`recall@5`, `ndcg@5`, ...) among other things; they needn't all go as far.
    """
    at: set[int] = set()
    for summary in summaries:
        held = {int(name.removeprefix("recall@")) for name in summary if name.startswith("recall@")}
        at |= held - {1} or held
    return tuple(f"{kind}@{k}" for kind in ("recall", "ndcg") for k in sorted(at))


def figure_cells(figures: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Return figures as cells of a table; what isn't there, or isn't known, is a dash."""
    return [f"{figures[c]:.4f}" if figures.get(c) is not None else "-" for c in columns]


def results_table(title: str, method: str, stages: Mapping[int, Mapping[str, Any]]) -> Table:
    """Return a table of each stage's figures of a method beside those of popularity and, where known, the ceiling.

    Args:
        title: shown above.
        method: the method's name.
        stages: stage to its summary (`evaluated` of metrics.json, one split).
    """
    columns = figure_columns(*stages.values())
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("stage", justify="right")
    table.add_column("")
    for column in (*columns, "users"):
        table.add_column(column, justify="right")
    for stage, summary in stages.items():
        for row in _stage_rows(str(stage), method, summary):
            _add(table, row, columns)
        table.add_section()
    later = [summary for stage, summary in stages.items() if stage > 1]
    if len(later) > 1:
        for row in _stage_rows("mean 2+", method, _mean(later, columns)):
            _add(table, row, columns)
    table.caption = "A hit is an equal semantic ID; (item) tells items that share one apart, in expectation."
    return table


def group_table(method: str, groups: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> Table:
    """Return a table of each stage's figures by user group."""
    columns = figure_columns(*(figures for by_group in groups.values() for figures in by_group.values()))
    table = Table(title=f"{method} by user group", title_justify="left")
    for column in ("stage", "group"):
        table.add_column(column)
    for column in (*columns, "users"):
        table.add_column(column, justify="right")
    for stage, by_group in groups.items():
        for group, figures in by_group.items():
            _add(table, (str(stage), group, figures), columns)
    return table


def _stage_rows(stage: str, method: str, summary: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = [(stage, method, summary), ("", f"{method} (item)", summary["item"])]
    rows += [("", name, summary[kind]) for kind, name in _OF_HYBRIDS.items() if kind in summary]
    rows.append(("", "popularity", summary["popularity"]))
    if "ceiling" in summary:
        rows.append(("", "best attainable", summary["ceiling"]))
    return rows


def _add(table: Table, row: Row, columns: Sequence[str]) -> None:
    stage, name, figures = row
    users = figures.get("users")
    table.add_row(stage, name, *figure_cells(figures, columns), "" if users is None else f"{users:,}")


def _mean(summaries: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """Average over stages, each stage counting the same, as the paper does."""

    def mean(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {c: sum(p[c] for p in parts) / len(parts) for c in columns if all(c in p for p in parts)}

    averaged: dict[str, Any] = {**mean(summaries)}
    for kind in ("item", "popularity", "ceiling", *_OF_HYBRIDS):
        if all(kind in summary for summary in summaries):
            averaged[kind] = mean([summary[kind] for summary in summaries])
    return averaged
