import json
import math

import pytest
from artifact_makers import made, summary

from peso_cli.commands.tables import table_names
from peso_cli.reports.collected import collect
from peso_cli.reports.selection import select
from peso_cli.reports.tables import (
    beyond,
    cumulative,
    efficiency,
    forgetting,
    groups,
    learning_rate,
    main,
    regularizers,
    strength,
)


def built(room, output, *words, baseline="single"):
    """All tables of the only group, and the means of the first one's cells by row and column."""
    (group,) = select(collect(output, pytest.fail), words, baseline)
    tables = room.build(group)
    return tables, cells(tables[0]) if tables else {}


def cells(table):
    columns = [column.name for column in table.columns]
    return {row.name: dict(zip(columns, (cell.mean for cell in row.cells), strict=True)) for row in table.rows}


def notes(table):
    return [note.text for note in table.footnotes]


def commands(table):
    return [note.command for note in table.footnotes if note.command]


def test_each_table_is_a_module():
    assert table_names() == (
        "beyond",
        "cumulative",
        "datasets",
        "efficiency",
        "forgetting",
        "groups",
        "hybrid",
        "learning_rate",
        "main",
        "regularizers",
        "significance",
        "strength",
        "two_tower",
    )


@pytest.fixture
def output(tmp_path):
    """Two methods at two stages."""
    for method, values in (("single", (0.1, 0.3)), ("peso", (0.2, 0.4))):
        for stage, value in zip((2, 3), values, strict=True):
            made(tmp_path, method, stage, value, on={1: value / 2})
    return tmp_path


# Main


def test_figures_are_averaged_over_stages(output):
    (table,), found = built(main, output)
    assert list(found) == ["single", "peso", "popularity"]
    assert found["single"]["ndcg@10"] == pytest.approx(0.2)
    assert found["peso"]["recall@5"] == pytest.approx(0.301)
    assert found["popularity"]["recall@10"] == pytest.approx(0.01)
    assert table.title == "synthetic, tiny: test users, mean over stages 2, 3"
    assert [row.cells[1].mark for row in table.rows] == ["second", "best", ""]
    assert "A hit is an equal semantic ID." in notes(table)


def test_gains_are_relative_to_the_baseline(output):
    _, found = built(main, output)
    assert found["peso"]["ndcg@10 gain %"] == pytest.approx(50)
    assert found["single"]["ndcg@10 gain %"] == 0
    assert "ndcg@10 gain %" not in built(main, output, baseline="")[1]["peso"]
    (table,), _ = built(main, output, baseline="replay")
    assert "no gains: the baseline replay isn't among the rows" in notes(table)


def test_a_baseline_of_several_rows_is_to_be_chosen(output):
    made(output, "single", 2, variant="v2", words=("trainer.epochs=3",))
    (table,), found = built(main, output)
    assert "ndcg@10 gain %" not in found["peso"]
    row = "single (trainer.epochs=3)"
    assert any(
        "the baseline single has several rows; choose one: --baseline 'single (" in text for text in notes(table)
    )
    assert built(main, output, "stage=2", baseline=row)[1][row]["ndcg@10 gain %"] == 0


def test_seeds_are_averaged_with_their_deviation(output):
    for stage in (2, 3):
        made(output, "peso", stage, 0.5, seed=2)
        made(output, "single", stage, 0.5, seed=2)
    (table,), _ = built(main, output)
    cell = table.rows[1].cells[3]
    assert (cell.mean, cell.std, cell.count) == (pytest.approx(0.4), pytest.approx(0.2 / math.sqrt(2)), 2)
    assert "± is the sample standard deviation over seeds 1, 2" in notes(table)


def test_a_missing_stage_is_a_dash_with_the_command_that_fills_it(output):
    made(output, "l2", 2)
    (table,), found = built(main, output)
    assert found["l2"]["ndcg@10"] is None
    assert "missing: l2, seed 1, stage 3" in notes(table)
    (command,) = commands(table)
    assert command == f"peso train stage=3 method=l2 dataset=synthetic backbone=tiny seed=1 output={output}"


def test_a_missing_seed_leaves_the_mean_of_the_others(output):
    made(output, "peso", 3, 0.9, seed=2)
    (table,), found = built(main, output)
    assert found["peso"]["ndcg@10"] == pytest.approx(0.3)
    assert notes(table)[:2] == ["missing: single, seed 2, stages 2, 3", "missing: peso, seed 2, stage 2"]
    assert [command.split()[2] for command in commands(table)] == ["stage=3", "stage=2"]


def test_a_method_that_was_asked_for_is_a_row_of_dashes(output):
    (table,), found = built(main, output, "method=peso,replay")
    assert set(found["replay"].values()) == {None}
    assert commands(table)[0].startswith("peso train stage=3 method=replay dataset=synthetic")


def test_commands_hold_the_settings_that_are_not_there_by_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("trainer.epochs=3", "prompt=instruct", "regularizer=l2", "regularizer.strength=0.5", "variant=mine")
    made(tmp_path / "outputs", "peso", 2, variant="mine", dataset="amazon_games", words=words)
    made(tmp_path / "outputs", "single", 3, variant="mine", dataset="amazon_games", words=words)
    (table,), _ = built(main, tmp_path / "outputs")
    assert commands(table)[1] == (
        "peso train stage=3 method=peso dataset=amazon_games backbone=tiny prompt=instruct regularizer=l2 "
        "dataset.path=somewhere trainer.epochs=3 regularizer.strength=0.5 variant=mine seed=1"
    )


def test_commands_name_a_built_dataset_by_its_source(tmp_path):
    words = ("dataset=built", "dataset.name=movielens_100k")
    for method, stage in (("peso", 2), ("single", 3)):
        made(tmp_path, method, stage, dataset="movielens_100k", words=words)
    (table,), _ = built(main, tmp_path)
    assert all(" dataset=built dataset.name=movielens_100k backbone=tiny " in command for command in commands(table))


@pytest.mark.parametrize(("top", "at"), [(5, (5,)), (20, (5, 10, 20))])
def test_columns_go_as_far_as_the_lists(tmp_path, top, at):
    path = made(tmp_path, "peso", 2, top_k=top) / "metrics.json"
    metrics = json.loads(path.read_text())
    test = metrics["evaluated"]["2"]["test"]
    for kind in ("recall", "ndcg"):
        test[f"{kind}@{top}"] = 0.4
        if top < 10:
            del test[f"{kind}@10"]
    path.write_text(json.dumps(metrics))
    _, found = built(main, tmp_path, baseline="")
    assert list(found["peso"]) == [f"{kind}@{k}" for kind in ("recall", "ndcg") for k in at]
    assert found["peso"][f"ndcg@{top}"] == 0.4


# Beside the paper


def papers(output, dataset):
    """Three methods at 1, 2 and 3 hundredths; the paper has them in the order pretrain, single, peso."""
    for value, method in enumerate(("pretrain", "single", "peso"), start=1):
        made(output, method, 2, value / 100, dataset=dataset)


def test_published_figures_stand_beside_ours(tmp_path):
    papers(tmp_path, "amazon_instruments")
    (table,), found = built(main, tmp_path)
    assert found["peso"]["recall@10 (paper)"] == 0.0268
    assert found["popularity"]["recall@10 (paper)"] is None
    agreed = "rank agreement with the paper (Spearman), ndcg@10: instruments +1.00 over 3 methods"
    assert agreed in notes(table)


def test_for_another_dataset_the_orders_are_compared_with_all_of_the_papers(tmp_path):
    papers(tmp_path, "amazon_games")
    (table,), found = built(main, tmp_path)
    assert not any("paper" in name for name in found["peso"])
    (line,) = [text for text in notes(table) if "ndcg@10" in text]
    assert line.endswith(
        ": " + ", ".join(f"{name} +1.00 over 3 methods" for name in ("instruments", "movies", "books"))
    )


# The others


def test_items_are_told_apart(output):
    (table,), found = built(beyond, output)
    assert found["peso"]["ndcg@10"] == pytest.approx(0.15)
    assert found["popularity"]["ndcg@10"] == pytest.approx(0.005)
    assert any("the item itself" in text for text in notes(table))


def test_groups_are_averaged_over_the_stages_that_have_them(output):
    _, found = built(groups, output)
    assert found["peso"]["new.ndcg@5"] == pytest.approx(0.3)
    assert found["peso"]["dormant.recall@10"] == pytest.approx(0.075)
    assert found["peso"]["returning.ndcg@5"] is None


def test_published_groups_stand_beside_ours(tmp_path):
    papers(tmp_path, "amazon_instruments")
    _, found = built(groups, tmp_path)
    assert found["peso"]["dormant.ndcg@5 (paper)"] == 0.0170
    assert "returning.ndcg@5 (paper)" not in found["peso"]


def test_cumulative_adapters_stand_beside_the_baseline_alone(tmp_path):
    papers(tmp_path, "amazon_instruments")
    assert built(cumulative, tmp_path)[0] == []
    made(tmp_path, "sumlora_all", 2, 0.01, dataset="amazon_instruments", composition=("sum_lora", "none", "current"))
    _, found = built(cumulative, tmp_path)
    assert list(found) == ["single", "sumlora_all", "popularity"]
    assert found["sumlora_all"]["ndcg@5 gain %"] == pytest.approx(-50)
    assert found["sumlora_all"]["ndcg@5 gain % (paper)"] == -26.77


def test_regularizers_are_compared_on_one_evolving_adapter(tmp_path):
    order = {"peso": "softmax_kl", "output_kl": "output_kl", "l2": "l2", "orthogonal": "orthogonal"}
    for place, (method, name) in enumerate(order.items(), start=1):
        made(tmp_path, method, 2, 0.1 / place, composition=("evolving", name, "current"))
    made(tmp_path, "retrain", 2, composition=("fresh", "none", "all"))
    (table,), found = built(regularizers, tmp_path)
    assert set(found) == {*order, "popularity"}
    assert "rank agreement with the paper's Figure 2 (Spearman), ndcg@10: +1.00 over 4" in notes(table)


def test_strengths_are_in_order(tmp_path):
    for place, value in enumerate((1000, 20, 300)):
        made(tmp_path, "peso", variant=f"v{place}", words=(f"regularizer.strength={value}",))
    _, found = built(strength, tmp_path)
    assert [*found][:3] == [f"peso (regularizer.strength={value})" for value in (20, 300, 1000)]
    assert built(learning_rate, tmp_path)[0] == []
    assert built(strength, tmp_path, "variant=v0")[0] == []


def test_learning_rates_are_in_order(tmp_path):
    for place, rate in enumerate((0.01, 0.0002)):
        made(tmp_path, "single", variant=f"v{place}", words=(f"trainer.learning_rate={rate}",))
    _, found = built(learning_rate, tmp_path)
    assert [*found][:2] == ["single (trainer.learning_rate=0.0002)", "single (trainer.learning_rate=0.01)"]


def test_costs_are_those_recorded(output):
    (table,), found = built(efficiency, output)
    assert found["peso"] == {
        "trained parameters": 1000,
        "bytes, stage 2": 200,
        "bytes, stage 3": 300,
        "training s": 25,
        "scoring s": 1,
        "peak bytes": 5000,
    }
    assert not any("not recorded" in text for text in notes(table))


def test_costs_that_were_not_recorded_are_said_to_be_so(output):
    for path in output.glob("*/*/single/*/*/*/metrics.json"):
        path.write_text(path.read_text().replace("stored_bytes", "other").replace('"training": {', '"training2": {'))
        path.write_text(path.read_text().replace("peak_bytes", "other"))
    (table,), found = built(efficiency, output)
    assert found["single"]["bytes, stage 2"] is found["single"]["trained parameters"] is None
    assert (found["single"]["peak bytes"], found["peso"]["peak bytes"]) == (None, 5000)
    assert any("not recorded when it was trained: single;" in text for text in notes(table))


def test_what_trains_nothing_has_trained_no_parameters(tmp_path):
    path = made(tmp_path, "pretrain", 2) / "metrics.json"
    path.write_text(
        path.read_text().replace('"training": {"trained_parameters": 1000, "history": []}', '"training": null')
    )
    assert built(efficiency, tmp_path)[1]["pretrain"]["trained parameters"] == 0


# Forgetting


MATRIX = ((0.50, 0.10, 0.12, 0.14), (0.40, 0.30, 0.16, 0.10), (0.35, 0.20, 0.40, 0.25), (0.30, 0.15, 0.35, 0.60))


AHEAD = (0.08, 0.18, 0.28)


def matrix(output, seed=1, shift=0.0, ahead=AHEAD):
    for stage, row in enumerate(MATRIX, start=1):
        on = {users: value + shift for users, value in enumerate(row, start=1)}
        folder = made(output, "base" if stage == 1 else "peso", stage, row[stage - 1] + shift, seed=seed, on=on)
        if stage <= len(ahead):
            score_next(folder, stage, ahead[stage - 1] + shift)


def score_next(folder, stage, value):
    """Give a stage figures on the first events of the next one."""
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["evaluated"].setdefault(str(stage + 1), {})["next"] = {**summary(value), "left_out": 7}
    metrics["data"].setdefault(str(stage + 1), f"data {stage + 1}")
    path.write_text(json.dumps(metrics))


def test_transfer_is_as_defined(tmp_path):
    matrix(tmp_path)
    (table, own), found = built(forgetting, tmp_path)
    assert found["peso"]["BWT"] == pytest.approx(((0.30 - 0.50) + (0.15 - 0.30) + (0.35 - 0.40)) / 3)
    assert found["peso"]["FWT"] == pytest.approx(((0.16 - 0.12) + (0.25 - 0.14)) / 2)
    assert found["peso"]["next stage"] == pytest.approx((0.16 + 0.25) / 2)
    assert found["peso"]["next event"] == pytest.approx((0.18 + 0.28) / 2)
    assert any("1706.08840" in text for text in notes(table))
    rows = [[cell.mean for cell in row.cells] for row in own.rows]
    assert [row[:4] for row in rows] == [pytest.approx(list(row)) for row in MATRIX]
    assert [row[4] for row in rows] == [0.10, 0.16, 0.25, None]
    assert [row[5] for row in rows] == [*AHEAD, None]
    assert commands(own) == commands(table) == []


def test_transfer_over_seeds_has_a_deviation(tmp_path):
    matrix(tmp_path)
    matrix(tmp_path, seed=2, shift=0.1)
    (_, own), found = built(forgetting, tmp_path)
    assert found["peso"]["BWT"] == pytest.approx(-0.4 / 3)
    assert own.rows[0].cells[0].mean == pytest.approx(0.55)
    assert own.rows[0].cells[0].std == pytest.approx(0.1 / math.sqrt(2))


def test_what_was_not_scored_is_named_with_its_command(tmp_path):
    made(tmp_path, "base", 1, on={2: 0.1})
    made(tmp_path, "peso", 2)
    (table, own), found = built(forgetting, tmp_path)
    assert found["peso"] == {"BWT": None, "FWT": None, "next stage": None, "next event": None}
    words = f"method=peso dataset=synthetic backbone=tiny seed=1 output={tmp_path}"
    assert commands(own) == [
        f"peso evaluate stage=2 {words} 'evaluation.on=[1,2]'",
        f"peso evaluate stage=1 {words} evaluation=next_stage",
    ]
    assert any("named under the method's own table" in text for text in notes(table))


def test_first_events_that_were_not_asked_for_are_named_with_their_command(tmp_path):
    matrix(tmp_path, ahead=AHEAD[:1])
    (_, own), found = built(forgetting, tmp_path)
    assert found["peso"]["next event"] is None
    assert found["peso"]["next stage"] is not None
    assert notes(own) == ["missing: peso, seed 1, after stage 2, 3 on the first events of the next stage"]
    (command,) = commands(own)
    assert command.startswith("peso evaluate 'stage=[2,3]' method=peso ")
    assert command.endswith(" evaluation=next_stage")


def test_first_events_need_no_figures_on_other_stages(tmp_path):
    score_next(made(tmp_path, "base", 1), 1, 0.2)
    score_next(made(tmp_path, "peso", 2), 2, 0.4)
    (_, own), _ = built(forgetting, tmp_path)
    assert [row.cells[-1].mean for row in own.rows] == [0.2, 0.4]
    assert not any("first events" in text for text in notes(own))


def test_first_events_of_data_that_has_changed_since_do_not_count(tmp_path):
    score_next(made(tmp_path, "base", 1), 1, 0.2)
    made(tmp_path, "peso", 2, data="new")
    (_, own), _ = built(forgetting, tmp_path)
    assert own.rows[0].cells[-1].mean is None
    assert commands(own)[-1].endswith(" evaluation=next_stage")


def test_figures_of_data_that_has_changed_since_do_not_count(tmp_path):
    made(tmp_path, "base", 1, on={2: 0.1}, data="old")
    made(tmp_path, "peso", 2, on={1: 0.1}, data="new")
    (_, own), _ = built(forgetting, tmp_path)
    assert own.rows[0].cells[1].mean is None
    assert own.rows[1].cells[0].mean is None


def test_the_base_is_looked_at_under_the_methods_own_protocol(tmp_path):
    made(tmp_path, "base", 1, on={2: 0.1}, beams=50)
    made(tmp_path, "peso", 2, on={1: 0.1})
    (_, own), _ = built(forgetting, tmp_path)
    assert own.rows[0].cells[0].mean is None
