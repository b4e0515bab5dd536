"""The table of two-tower models: joined over backbones, beside language models and the published figures."""

import polars as pl
import pytest
from artifact_makers import made

from peso_cli.reports.collected import collect
from peso_cli.reports.selection import select
from peso_cli.reports.tables import two_tower


def run(output, method, value, *, backbone="lightgcn", dataset="amazon_instruments", seed=1):
    """A finished stage 2 with predictions."""
    words = (f"backbone={backbone}",)
    folder = made(output, method, 2, value, seed=seed, dataset=dataset, words=words, backbone=backbone)
    users = {"user": ["u", "v"], "stage": [2, 2], "items": [[f"item{n}" for n in range(10)]] * 2}
    found = {"rank": [1, None], "position": [int(10 * value), None], "sharing": [1, 1]}
    pl.DataFrame(users | found).write_parquet(folder / "predictions.parquet")


def tables(output, *words, baseline="single"):
    groups = two_tower.regrouped(select(collect(output, pytest.fail), words, baseline))
    return [table for group in groups for table in two_tower.build(group)]


def figures(table, column):
    place = [c.name for c in table.columns].index(column)
    return {row.name: row.cells[place].mean for row in table.rows}


@pytest.fixture
def output(tmp_path):
    for place, method in enumerate(("two_tower_pisa", "two_tower_retrain", "two_tower_finetune", "two_tower_pretrain")):
        run(tmp_path, method, 0.4 - place / 10)
    return tmp_path


def test_methods_stand_in_the_papers_order_with_figures_of_items(output):
    table, *differences = tables(output)
    assert table.title == "amazon_instruments, lightgcn: two-tower models, stage 2"
    methods = ["two_tower_pretrain", "two_tower_finetune", "two_tower_pisa", "two_tower_retrain"]
    assert [row.name for row in table.rows] == [*methods, "popularity"]
    assert list(figures(table, "ndcg@10").values()) == pytest.approx([0.05, 0.1, 0.2, 0.15, 0.005])
    assert list(figures(table, "ndcg (paper)").values()) == [0.0153, 0.0180, 0.0194, None, None]
    assert figures(table, "ndcg@10 gain %")["two_tower_pisa"] == pytest.approx(100)
    assert len(differences) == 2
    assert all("against two_tower_finetune" in t.title for t in differences)
    assert all("the item itself" in t.footnotes[-1].text for t in differences)


def test_language_models_on_the_same_users_stand_beside_them_and_others_do_not(output):
    for method, value in (("peso", 0.6), ("single", 0.5), ("l2", 0.9)):
        run(output, method, value, backbone="tiny")
    run(output, "two_tower_finetune", 0.8, backbone="bpr")
    (table, *_) = tables(output)
    rows = figures(table, "recall@10")
    assert list(rows)[:3] == ["two_tower_pretrain, lightgcn", "two_tower_finetune, bpr", "two_tower_finetune, lightgcn"]
    assert list(rows)[-3:] == ["single, tiny", "peso, tiny", "popularity"]
    assert rows["peso, tiny"] == pytest.approx(0.3)
    assert figures(table, "ndcg@10 gain %")["peso, tiny"] == pytest.approx(20)
    assert any("two-tower models rank all items" in note.text for note in table.footnotes)


def test_other_data_is_told_of(output):
    made(output, "single", 2, 0.5, dataset="amazon_instruments", data="other")
    (group,) = two_tower.regrouped(select(collect(output, pytest.fail), ["backbone=tiny,lightgcn"], "single"))
    assert "differ in the data" in group.mixed


def test_without_a_two_tower_method_there_is_no_table(tmp_path):
    made(tmp_path, "single", 2, 0.5)
    assert tables(tmp_path) == []
