import json
import re

import pyarrow.parquet
import pytest
import yaml
from commands.running import SMALL, Trained, files_of, learnt, peso, refused
from safetensors import safe_open

from peso_cli.config.compose import compose
from peso_cli.evaluation import figures
from peso_cli.evaluation.metrics import sid_figures
from peso_cli.training import loop


@pytest.fixture
def no_training(monkeypatch):
    """Training and scoring fail the test."""

    def fail(*args, **kwargs):
        raise AssertionError("nothing was to be trained or scored")

    monkeypatch.setattr(loop, "label_loss", fail)
    monkeypatch.setattr(figures, "score", fail)


# Which stages come into being


def test_a_stage_brings_its_ancestors_into_being_and_says_so(tmp_path):
    answer = peso("train", "stage=2", "method=single", f"output={tmp_path}", *SMALL)
    assert answer.code == 0
    first, of_first, second, of_second = (line for line in answer.err.splitlines() if line.startswith("stage"))
    made = Trained(tmp_path)
    assert first == f"stage 1: training {made.folder('base', 1)} (stage 2 needs it)"
    assert second == f"stage 2: training {made.folder('single', 2)}"
    holds = r"[\d,]+ examples as [\d,]+ sequences of \d+ to \d+ tokens \(mean \d+\)"
    needs = r"batches filled to \d+%; about \d+\.\d GB of memory"
    for stage, line in enumerate((of_first, of_second), start=1):
        assert re.fullmatch(f"stage {stage}: {holds}; {needs}", line)
    assert str(made.folder("single", 2)) in answer.out
    assert {path.parent.name for path in tmp_path.rglob("DONE")} == {"stage_1", "stage_2"}


def test_the_same_command_again_trains_nothing(copied, no_training):
    before = files_of(copied.output)
    answer = peso("train", "stage=3", *copied.arguments())
    assert answer.code == 0
    assert [line.split(" /")[0] for line in answer.err.splitlines()] == [f"stage {s}: reusing" for s in (1, 2, 3)]
    assert files_of(copied.output) == before


def test_methods_share_the_base(copied, no_training):
    answers = [
        peso("train", "stage=1", f"method={method}", *copied.arguments()) for method in ("peso", "l2", "pretrain")
    ]
    assert [answer.code for answer in answers] == [0, 0, 0]
    assert len({answer.err for answer in answers}) == 1
    assert len(list(copied.output.glob("synthetic/tiny/base/*/*/*"))) == 1


@pytest.mark.parametrize(
    ("stage", "stages"), [("all", [1, 2, 3]), ("[1,3]", [1, 3]), ("2..3", [2, 3]), ("2", [2]), ("[3,1,3]", [1, 3])]
)
def test_several_stages_at_once(trained, no_training, stage, stages):
    answer = peso("train", f"stage={stage}", "--json", *trained.arguments())
    assert answer.code == 0
    assert [int(number) for number in answer.document["stages"]] == stages
    shown = peso("train", f"stage={stage}", *trained.arguments()).out
    assert [line for line in shown.splitlines() if line.endswith(tuple(f"stage_{s}" for s in (1, 2, 3)))] == [
        f"stage {s}: {trained.folder('base' if s == 1 else 'peso', s)}" for s in stages
    ]


@pytest.mark.parametrize("stage", ["9", "0", "-1", "[1,9]", "2..9"])
def test_there_must_be_such_a_stage(tmp_path, stage):
    refused(peso("train", f"stage={stage}", f"output={tmp_path}", *SMALL), "synthetic has stages 1 to 3")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["x", "", "3..1", "1..", "..2", "1...2", "1..x", "'1'"])
def test_a_stage_that_can_not_be_read(tmp_path, stage):
    value = stage.strip("'")
    refused(peso("train", f"stage={stage}", f"output={tmp_path}", *SMALL), f"stage={value}: give a number, several")
    assert not list(tmp_path.iterdir())


# What a stage leaves


def test_a_run_folder_holds_what_it_promises(trained):
    assert set(files_of(trained.folder("peso", 2))) >= {
        "config.yaml",
        "lineage.json",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "metrics.json",
        "predictions.parquet",
        "log.jsonl",
        "DONE",
    }
    assert set(files_of(trained.folder("base", 1))) >= {"model/model.safetensors", "model/config.json", "DONE"}
    assert not {"adapter", "model"} & {path.name for path in trained.folder("pretrain", 2).iterdir()}


def test_weights_are_safetensors_and_nothing_is_pickled_or_left_over(trained):
    names = [path.name for path in trained.output.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl", ".pickle", ".part"))]
    assert "checkpoint.safetensors" not in names


def test_the_adapter_is_in_pefts_format(trained):
    folder = trained.folder("peso", 2) / "adapter"
    config, lora = json.loads((folder / "adapter_config.json").read_text()), compose([]).config.backbone.lora
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", lora.rank, lora.alpha)
    assert set(config["target_modules"]) == set(lora.targets)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    assert shapes["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] == [lora.rank, 32]
    assert len(shapes) == 2 * len(lora.targets)  # one layer, A and B


def test_done_is_written_last(trained):
    for mark in trained.output.rglob("DONE"):
        others = [path for path in mark.parent.rglob("*") if path.is_file() and path != mark]
        assert all(path.stat().st_mtime_ns <= mark.stat().st_mtime_ns for path in others)


def test_the_config_is_kept_resolved(trained):
    folder = trained.folder("peso", 2)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["trainer"]["epochs"] == 2
    assert config["regularizer"] == compose([]).plain["regularizer"]
    assert "???" not in (folder / "config.yaml").read_text()
    assert "${" not in (folder / "config.yaml").read_text()


def test_the_lineage_tells_where_a_stage_comes_from(trained):
    first, second, third = (
        json.loads((trained.folder(method, stage) / "lineage.json").read_text())
        for method, stage in (("base", 1), ("peso", 2), ("peso", 3))
    )
    assert first["parents"] == []
    assert [parent["fingerprint"] for parent in third["parents"]] == [second["fingerprint"]]
    assert third["parents"][0]["path"] == str(trained.folder("peso", 2))
    assert first["composition"] == {"adapter": "full_weights", "regularizer": "none", "memory": "current"}
    assert second["composition"] == {"adapter": "evolving", "regularizer": "softmax_kl", "memory": "current"}
    assert (first["method"], second["method"], second["seed"], second["stage"]) == ("base", "peso", 1, 2)
    assert second["trained_on"] == [2]
    assert set(second["data"]["blocks"]) == {"2"}
    assert second["data"]["catalog"] == first["data"]["catalog"]
    assert set(second["versions"]) >= {"peso", "torch", "peft"}
    frozen = json.loads((trained.folder("pretrain", 3) / "lineage.json").read_text())
    assert frozen["trained_on"] == []


def test_metrics_are_laid_out_as_promised(trained):
    metrics = json.loads((trained.folder("peso", 2) / "metrics.json").read_text())
    assert metrics["stage"] == 2
    test = metrics["evaluated"]["2"]["test"]
    names = {"recall@1", "recall@5", "recall@10", "ndcg@5", "ndcg@10"}
    assert names | {"users", "item", "popularity", "ceiling"} <= set(test)
    assert all(0 <= test[name] <= 1 for name in names)
    assert test["kind"] == "sid"
    assert names <= set(test["item"])
    assert names <= set(test["popularity"])
    groups = metrics["groups"]["2"]["test"]
    assert sum(group["users"] for group in groups.values()) == test["users"]
    assert set(metrics["seconds"]) == {"train", "evaluate"}
    training = metrics["training"]
    assert [row["epoch"] for row in training["history"]] == [0, 1, 2] == [*range(training["epochs"] + 1)]
    assert training["best_validation_loss"] == min(row["validation_loss"] for row in training["history"])
    assert json.loads((trained.folder("pretrain", 2) / "metrics.json").read_text())["training"] is None


@pytest.mark.parametrize(("method", "stage"), [("base", 1), ("peso", 2), ("pretrain", 3)])
def test_predictions_bear_the_metrics_out(trained, method, stage):
    folder = trained.folder(method, stage)
    table = pyarrow.parquet.read_table(folder / "predictions.parquet")
    rows = table.to_pylist()
    test = json.loads((folder / "metrics.json").read_text())["evaluated"][str(stage)]["test"]
    assert table.column_names[:7] == ["user", "stage", "target", "items", "scores", "rank", "history_length"]
    assert len(rows) == len({row["user"] for row in rows}) == test["users"]
    assert {row["stage"] for row in rows} == {stage}
    ranks = table["rank"].fill_null(0).to_numpy()
    for name, column in sid_figures(ranks, 10).items():
        assert column.mean() == pytest.approx(test[name], abs=1e-12)
    for row in rows:
        assert len(row["items"]) == len(row["scores"]) == 10
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert row["rank"] is None or 1 <= row["rank"] <= 10
        # The first item that carries a semantic ID stands for it, so that a lone target stands at its rank.
        if row["sharing"] == 1:
            assert (row["target"] in row["items"]) == (row["rank"] is not None)
            assert row["rank"] is None or row["items"][row["rank"] - 1] == row["target"]
        assert (row["position"] is None) == (row["rank"] is None)
    recall = sum(row["position"] is not None and row["position"] <= 10 for row in rows if row["sharing"] == 1)
    assert recall <= test["item"]["recall@10"] * len(rows) + 1e-9


def test_the_log_holds_every_step_and_the_result(trained):
    lines = [json.loads(line) for line in (trained.folder("peso", 2) / "log.jsonl").read_text().splitlines()]
    metrics = json.loads((trained.folder("peso", 2) / "metrics.json").read_text())
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, metrics["training"]["steps"] + 1))
    assert all({"penalty", "penalty_share", "penalty_gradient_ratio", "learning_rate"} <= set(s) for s in steps)
    assert all(step["learning_rate"] > 0 for step in steps)
    validation = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert validation == [row["validation_loss"] for row in metrics["training"]["history"]]
    assert lines[-1]["event"] == "result"
    assert lines[-1]["recall@10"] == metrics["evaluated"]["2"]["test"]["recall@10"]


def test_equal_commands_leave_equal_bytes(trained, tmp_path):
    assert peso("train", "stage=2", *SMALL, f"output={tmp_path}").code == 0
    again = Trained(tmp_path)
    for method, stage in (("base", 1), ("peso", 2)):
        assert learnt(again.folder(method, stage)) == learnt(trained.folder(method, stage))


def test_other_seeds_leave_other_weights(trained, tmp_path):
    assert peso("train", "stage=1", *SMALL, f"output={tmp_path}", "seed=2").code == 0
    (other,) = tmp_path.rglob("model.safetensors")
    assert other.read_bytes() != (trained.folder("base", 1) / "model/model.safetensors").read_bytes()


# What is shown


def test_the_table_sets_a_method_beside_popularity_and_the_ceiling(trained):
    answer = peso("train", "stage=3", *trained.arguments())
    metrics = {s: json.loads((trained.folder("peso", s) / "metrics.json").read_text()) for s in (2, 3)}
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in answer.out.splitlines() if line[:1] == "│"]
    names = ["peso", "peso (item)", "popularity", "best attainable"]
    assert [row[1] for row in rows] == names * 4
    own = metrics[3]["evaluated"]["3"]["test"]
    assert rows[8][0] == "3"
    assert rows[8][2:] == [f"{own[c]:.4f}" for c in ("recall@5", "recall@10", "ndcg@5", "ndcg@10")] + [
        str(own["users"])
    ]
    means = [sum(m["evaluated"][str(s)]["test"]["ndcg@10"] for s, m in metrics.items()) / 2]
    assert rows[12][0] == "mean 2+"
    assert rows[12][5] == f"{means[0]:.4f}"


def test_training_says_what_the_regularizer_did(trained):
    peso_lines = peso("train", "stage=2", *trained.arguments()).out
    single_lines = peso("train", "stage=2", *trained.arguments("method=single")).out
    assert re.search(
        r"stage 2: best of 2 epochs was \d \(validation cross-entropy .*; penalty .*% of the loss", peso_lines
    )
    assert re.search(r"stage 2: best of 2 epochs was \d \(validation cross-entropy [\d.]+\)$", single_lines, re.M)


def test_figures_on_other_stages_and_splits_can_be_asked_for(copied):
    answer = peso("train", "stage=3", "evaluation.on=[1,2]", "evaluation.split=valid", *copied.arguments())
    assert "peso after stage 3, valid users of stages [1, 2]" in answer.out
    document = peso("train", "stage=3", "evaluation.on=[1,2]", "evaluation.split=valid", "--json", *copied.arguments())
    evaluated = document.document["stages"]["3"]["evaluated"]
    assert set(evaluated["1"]) == {"valid"}
    assert set(evaluated["3"]) == {"test"}
    # Ancestors aren't shown on other stages' users, so that they aren't scored on them either.
    assert set(json.loads((copied.folder("peso", 2) / "metrics.json").read_text())["evaluated"]) == {"2"}


def test_the_next_stage_can_be_asked_for_while_training(copied):
    answer = peso("train", "stage=2..3", "evaluation=next_stage", *copied.arguments())
    assert "peso after stage 2, first events of users of stages [3]" in answer.out
    assert "after stage 3" not in answer.out
    assert "stage 3 is the last one of synthetic" in answer.err
    assert f"stage 3: {copied.folder('peso', 3)}" in answer.out
    document = peso("train", "stage=2..3", "evaluation=next_stage", "--json", *copied.arguments()).document["stages"]
    assert set(document["2"]["evaluated"]["3"]) == {"next"}
    assert set(document["3"]["evaluated"]) == {"3"}


def test_a_stage_can_be_trained_and_scored_on_all(copied):
    answer = peso("train", "stage=3", "evaluation=matrix", *copied.arguments())
    assert "peso after stage 3, test users of stages [1, 2, 3]" in answer.out
    assert set(json.loads((copied.folder("peso", 2) / "metrics.json").read_text())["evaluated"]) == {"2"}


def test_json_is_one_document_with_the_metrics_as_they_are_on_disk(trained):
    answer = peso("train", "stage=[2,3]", "--json", *trained.arguments())
    for stage, found in answer.document["stages"].items():
        folder = trained.folder("peso", int(stage))
        assert found.pop("folder") == str(folder)
        assert found == json.loads((folder / "metrics.json").read_text())


# What is refused before any work


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("decoding.beams=5", ["decoding.beams=5", "at least 10"]),
        ("evaluation.on=[9]", ["stage=9", "stages 1 to 3"]),
        ("stage=3 evaluation=next_stage", ["stage 3 is the last one of synthetic", "give an earlier stage="]),
        ("evaluation=matrix evaluation.on=[1]", ["evaluation.on=[1]", "give evaluation=in_stage"]),
        ("dataset.shared_ids=2", ["dataset.shared_ids=2"]),
        ("adapter=frozen", ["regularizer=softmax_kl", "adapter=frozen trains nothing", "regularizer=none"]),
    ],
)
def test_what_can_not_be_worked_out_is_refused_before_any_work(tmp_path, override, parts):
    refused(peso("train", "stage=2", *SMALL, f"output={tmp_path}", *override.split()), *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["backbone.heads=3"], ["backbone.hidden=32", "backbone.heads=3"]),
        (["prompt.item=x"], ["prompt.item", "{sid}"]),
    ],
)
def test_settings_that_do_not_fit_are_one_line_and_nothing_is_finished(tmp_path, overrides, parts):
    refused(peso("train", *SMALL, f"output={tmp_path}", *overrides), *parts)
    assert not list(tmp_path.rglob("DONE"))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["backbone.lora.targets=[q_prj]"], ["backbone.lora", "q_prj"]),
        (["adapter=full_weights"], ["regularizer=softmax_kl", "adapter=full_weights", "regularizer=none"]),
    ],
)
def test_a_method_that_does_not_fit_is_one_line(copied, overrides, parts):
    refused(peso("train", "stage=2", *copied.arguments(*overrides)), *parts)


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    refused(peso("train", *SMALL, f"output={tmp_path / 'file'}"), f"output={tmp_path / 'file'}: is a file")


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    inside = tmp_path / "file" / "outputs"
    refused(peso("train", *SMALL, f"output={inside}"), str(tmp_path / "file"), "Not a directory", code=1)


def test_training_that_diverges_is_one_line_and_says_what_to_lower(tmp_path):
    answer = peso("train", *SMALL, f"output={tmp_path}", "trainer.learning_rate=1e30", "trainer.clip_norm=1e30")
    refused(answer, "Lower trainer.learning_rate", code=1)
    assert not list(tmp_path.rglob("DONE"))
