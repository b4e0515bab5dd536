import io

import pytest
from rich.console import Console

from peso_cli.reports.results import figure_columns, group_table, results_table

COLUMNS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")


def shown(table):
    """What a wide terminal shows of a table, and the cells of its rows."""
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    text = console.file.getvalue()
    return text, [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]


def figures(value, **more):
    return {"recall@1": 0.01, "ndcg@1": 0.01, **{c: value + n / 100 for n, c in enumerate(COLUMNS)}, **more}


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


# Lists of other lengths


def at(*ks, **more):
    """Figures at some K: each is its own K over 100, NDCG half of it."""
    return {f"recall@{k}": k / 100 for k in ks} | {f"ndcg@{k}": k / 200 for k in ks} | more


@pytest.mark.parametrize(
    ("held", "shown_at"), [([(1, 5, 10)], (5, 10)), ([(1, 5, 10, 20)], (5, 10, 20)), ([(1, 5)], (5,)), ([(1,)], (1,))]
)
def test_columns_are_the_cutoffs_above_one_or_one_alone(held, shown_at):
    columns = [f"{kind}@{k}" for kind in ("recall", "ndcg") for k in shown_at]
    assert list(figure_columns(*(at(*ks, users=3, item=at(7), kind="sid") for ks in held))) == columns


def test_columns_of_several_are_those_of_each():
    assert figure_columns(at(1, 20), at(1, 5)) == ("recall@5", "recall@20", "ndcg@5", "ndcg@20")
    assert figure_columns(at(1, 5), at(1)) == ("recall@1", "recall@5", "ndcg@1", "ndcg@5")
    assert figure_columns() == figure_columns({}) == ()


@pytest.mark.parametrize("ks", [(1,), (1, 5), (1, 5, 10, 20)])
def test_tables_go_as_far_as_the_summaries(ks):
    columns = [f"{kind}@{k}" for kind in ("recall", "ndcg") for k in ks if k > 1 or ks == (1,)]
    whole = {**at(*ks, users=3), "item": at(*ks, users=3), "popularity": at(*ks, users=3), "ceiling": at(*ks[:2])}
    text, rows = shown(results_table("", "peso", {2: whole, 3: whole}))
    assert [cell.strip() for cell in text.splitlines()[1].split("┃")[3:-2]] == columns
    values = [f"{whole[c]:.4f}" for c in columns]
    bounds = [f"{whole['ceiling'][c]:.4f}" if c in whole["ceiling"] else "-" for c in columns]
    assert [row[2:] for row in rows] == ([[*values, "3"]] * 3 + [[*bounds, ""]]) * 2 + [[*values, ""]] * 3 + [
        [*bounds, ""]
    ]
    _, rows = shown(group_table("peso", {2: {"new": at(*ks, users=3)}}))
    assert rows == [["2", "new", *values, "3"]]
