import io

import pytest
from rich.console import Console

from peso_cli.reports.results import COLUMNS, group_table, results_table


def shown(table):
    """What a wide terminal shows of a table, and the cells of its rows."""
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    text = console.file.getvalue()
    return text, [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]


def figures(value, **more):
    return {**{column: value + n / 100 for n, column in enumerate(COLUMNS)}, **more}


def summary(value, **more):
    return figures(value, users=1234, item=figures(value / 2, users=1234), popularity=figures(0.1, users=1234), **more)


def row(value, users=""):
    return [f"{value + n / 100:.4f}" for n in range(4)] + [users]


def test_a_stage_is_set_beside_popularity():
    text, rows = shown(results_table("a title", "peso", {1: summary(0.4)}))
    assert "a title" in text
    assert rows == [
        ["1", "peso", *row(0.4, "1,234")],
        ["", "peso (item)", *row(0.2, "1,234")],
        ["", "popularity", *row(0.1, "1,234")],
    ]
    assert "A hit is an equal semantic ID" in text


def test_where_the_ceiling_is_known_it_is_shown():
    _, rows = shown(results_table("", "peso", {2: summary(0.4, ceiling=figures(0.8))}))
    assert rows[-1] == ["", "best attainable", *row(0.8)]


def test_later_stages_are_averaged_each_counting_the_same():
    stages = {1: summary(0.9), 2: summary(0.4), 3: summary(0.2)}
    _, rows = shown(results_table("", "peso", stages))
    assert len(rows) == 4 * 3
    assert rows[9] == ["mean 2+", "peso", *row(0.3)]
    assert rows[10] == ["", "peso (item)", *row(0.15)]
    assert rows[11] == ["", "popularity", *row(0.1)]


@pytest.mark.parametrize("stages", [(1,), (1, 2), (3,)])
def test_one_later_stage_has_no_mean(stages):
    text, _ = shown(results_table("", "peso", {stage: summary(0.4) for stage in stages}))
    assert "mean" not in text


def test_the_ceiling_is_averaged_only_where_every_stage_has_one():
    stages = {2: summary(0.4, ceiling=figures(0.8)), 3: summary(0.4)}
    text, rows = shown(results_table("", "peso", stages))
    assert text.count("best attainable") == 1
    assert [cells[1] for cells in rows[-3:]] == ["peso", "peso (item)", "popularity"]


def test_figures_that_are_not_known_are_dashes():
    empty = {**dict.fromkeys(COLUMNS), "users": 0}
    _, rows = shown(group_table("peso", {2: {"new": figures(0.5, users=3), "dormant": empty}}))
    assert rows == [["2", "new", *row(0.5, "3")], ["2", "dormant", "-", "-", "-", "-", "0"]]
