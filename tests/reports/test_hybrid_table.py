"""The table of hybrids: parts, hybrid and union by stage, what was chosen, and the paired differences."""

import json

import polars as pl
import pytest
from artifact_makers import FIGURES, figures, made

from peso_cli.reports.collected import collect
from peso_cli.reports.selection import select
from peso_cli.reports.tables import hybrid


def run(output, stage, value, *, seed=1, weight=0.4, words=()):
    """A finished stage: the parts have 0.2 and 0.1, their union 0.5; the ranks are of three users."""
    folder = made(
        output, "hybrid", stage, value, seed=seed, words=words, backbone="hybrid", variant="v2" if words else "v1"
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    parts = {"generative": 0.2, "two_tower": 0.1, "oracle": 0.5}
    metrics["evaluated"][str(stage)]["test"] |= {
        name: {**figures(figure), "item": figures(figure / 2)} for name, figure in parts.items()
    }
    best = {name: {"weight": 1.0, **dict.fromkeys(FIGURES, figure)} for name, figure in parts.items()}
    best["calibrated"] = best.pop("oracle")
    metrics["fusion"] = {"fusion": {"kind": "calibrated", "weight": weight}, "by": "ndcg@10", "users": 9, "best": best}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    users = {"user": ["u", "v", "w"], "stage": [stage] * 3, "items": [[f"item{n}" for n in range(10)]] * 3}
    ranks = {"rank": [1, 2, None], "generative_rank": [1, None, None], "two_tower_rank": [None] * 3}
    schema = {"stage": pl.Int32, **dict.fromkeys(ranks, pl.Int32)}
    pl.DataFrame(users | ranks, schema_overrides=schema).write_parquet(folder / "predictions.parquet")


def tables(output):
    (group,) = select(collect(output, pytest.fail), [])
    return hybrid.build(group)


def values(table):
    return {row.name: [cell.mean for cell in row.cells] for row in table.rows}


@pytest.fixture
def output(tmp_path):
    run(tmp_path, 2, 0.3)
    run(tmp_path, 3, 0.4, weight=0.6)
    return tmp_path


PARTS = ["generative (tiny, single)", "two-tower (lightgcn, two_tower_retrain)"]


def test_parts_hybrid_and_union_stand_stage_by_stage(output):
    recall, ndcg, *_ = tables(output)
    for table, name in ((recall, "recall@10"), (ndcg, "ndcg@10")):
        assert table.title == f"synthetic, hybrid: {name} of hybrids and their parts, test users"
        assert [column.name for column in table.columns] == ["stage 2", "stage 3", "mean"]
        found = values(table)
        assert list(found) == [*PARTS, "hybrid", "oracle union of hybrid"]
        assert found["hybrid"] == pytest.approx([0.3, 0.4, 0.35])
        assert found["oracle union of hybrid"] == pytest.approx([0.5] * 3)
        assert [cell.mark for cell in table.rows[2].cells] == ["best"] * 3  # the union is no method


def test_what_was_chosen_stands_beside_the_figures_by_which_it_was(output):
    table = tables(output)[2]
    found = values(table)
    assert found["hybrid: weight"] == pytest.approx([0.4, 0.6, 0.5])
    assert [found[name] for name in PARTS] == [pytest.approx([0.2] * 3), pytest.approx([0.1] * 3)]
    assert found["hybrid"] == pytest.approx([0.5] * 3)
    assert table.footnotes[0].text == "hybrid, seed 1: stage 2 calibrated 0.4, stage 3 calibrated 0.6"


def test_differences_are_from_each_part_user_by_user(output):
    recall, ndcg = tables(output)[3:]
    assert values(recall)[f"hybrid over {PARTS[0]}"][0] == pytest.approx(1 / 3)
    assert values(recall)[f"hybrid over {PARTS[1]}"][0] == pytest.approx(2 / 3)
    assert values(ndcg)[f"hybrid over {PARTS[0]}"][0] == pytest.approx(0.63093 / 3, abs=1e-5)
    assert all(row.cells[5].mean == 6 for row in recall.rows)


def test_figures_are_means_over_seeds_and_what_is_missing_is_named(output):
    run(output, 2, 0.5, seed=2)
    recall = tables(output)[0]
    row = next(row for row in recall.rows if row.name == "hybrid")
    assert [(cell.mean, cell.count) for cell in row.cells] == [
        (pytest.approx(0.4), 2),
        (pytest.approx(0.4), 1),
        (pytest.approx(0.35), 1),
    ]
    assert any(note.text == "missing: hybrid, seed 2, stage 3" for note in recall.footnotes)


def test_several_hybrids_are_told_apart(output):
    for stage in (2, 3):
        run(output, stage, 0.2, words=("backbone.generative.method=peso",))
    recall = tables(output)[0]
    names = [row.name for row in recall.rows]
    assert "generative (tiny, peso)" in names
    assert "oracle union of hybrid (backbone.generative.method=peso)" in names


@pytest.mark.parametrize("fusion", [3, {}, {"by": "ndcg@10"}, {"fusion": {"kind": "alone", "weight": "x"}, "best": 1}])
def test_a_choice_of_another_shape_is_damage(output, fusion):
    path = output / "synthetic/hybrid/hybrid/v1/seed_1/stage_3/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fusion": fusion}))
    said = []
    assert len(collect(output, said.append)) == 1
    assert "metrics.json" in said[0]


def test_without_a_hybrid_there_is_no_table(tmp_path):
    made(tmp_path, "single", 2, 0.5)
    assert tables(tmp_path) == []
