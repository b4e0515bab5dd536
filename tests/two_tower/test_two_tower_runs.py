"""Two-tower models and their strategies through the commands, over three stages of a small world."""

import json
import math
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands.running import SMALL, learnt, peso, refused
from safetensors.torch import load_file
from test_stages import in_training, interrupt
from towers import arguments, folder

from peso_cli.config.compose import conf_folder
from peso_cli.training import loop

METHODS = sorted(path.stem.removeprefix("two_tower_") for path in (conf_folder() / "method").glob("two_tower_*.yaml"))
RUNS = [("lightgcn", method) for method in METHODS] + [("bpr", "pisa"), ("sasrec", "finetune"), ("sasrec", "retrain")]
HOLDING = ("contrastive", "contrastive_piw", "pisa")


@dataclass(frozen=True)
class Finished:
    """A method's finished stages 1 to 3."""

    backbone: str
    method: str
    output: Path

    def folder(self, stage):
        return folder(self.output, self.backbone, self.method, stage)

    def train(self, *more, output=None):
        return peso("train", "stage=3", *arguments(output or self.output, self.backbone, self.method, *more))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A backbone to an output folder with its stage 1, which all methods begin from."""

    @cache
    def trained(backbone):
        output = tmp_path_factory.mktemp(backbone)
        answer = peso("train", "stage=1", *arguments(output, backbone, "finetune"))
        assert answer.code == 0, answer.err
        return output

    return trained


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def finished(request, base, tmp_path_factory) -> Finished:
    """Each run in its turn; only to be read."""
    backbone, method = request.param
    found = Finished(
        backbone, method, Path(shutil.copytree(base(backbone), tmp_path_factory.mktemp("run") / "outputs"))
    )
    answer = found.train()
    assert answer.code == 0, answer.err
    assert "stage 1: reusing" in answer.err
    return found


def curve(path, name):
    rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def test_a_method_trains_and_is_scored_by_both_kinds_of_figures(finished):
    trains = finished.method != "pretrain"
    for stage in (2, 3):
        place = finished.folder(stage)
        metrics = json.loads((place / "metrics.json").read_text())
        found = metrics["evaluated"][str(stage)]["test"]
        assert found["users"] > 0
        assert 0 <= found["item"]["recall@10"] <= found["recall@10"] <= 1
        assert metrics["protocol"] == {"seen": "left_out", "top_k": 10, "window": 20}
        losses, history = curve(place, "loss"), (metrics["training"] or {}).get("history", [])
        assert bool(losses) == bool(history) == trains == (place / "model").is_dir()
        assert all(map(math.isfinite, losses))
        assert all(0 <= row["validation_loss"] < 1 for row in history)


def test_a_strategy_pulls_and_its_pull_is_logged_at_every_step(finished):
    place = finished.folder(3)
    ratios = curve(place, "penalty_gradient_ratio")
    assert len(ratios) == (len(curve(place, "loss")) if finished.method in HOLDING else 0)
    assert all(map(math.isfinite, ratios))
    assert max(ratios, default=1) > 0


def test_predictions_hold_the_list_of_items_and_what_its_figures_rest_on(finished):
    place = finished.folder(3)
    rows = pq.read_table(place / "predictions.parquet").to_pylist()
    found = json.loads((place / "metrics.json").read_text())["evaluated"]["3"]["test"]
    for row in rows:
        in_list = row["items"].index(row["target"]) + 1 if row["target"] in row["items"] else None
        assert (row["position"], row["sharing"]) == (in_list, 1)
        assert row["scores"] == sorted(row["scores"], reverse=True)
    assert sum(row["position"] is not None for row in rows) / len(rows) == pytest.approx(found["item"]["recall@10"])


def test_what_a_strategy_trains_for_itself_is_not_kept(finished):
    if finished.method == "pretrain":
        pytest.skip("leaves nothing")
    weights = load_file(finished.folder(3) / "model" / "towers.safetensors")
    assert not [name for name in weights if name.startswith("strategy")]
    assert not list(finished.folder(3).glob(".*"))
    before = load_file(finished.folder(2) / "model" / "towers.safetensors")
    assert len(weights["items"]) >= len(before["items"])
    if "users" in weights:
        assert len(weights["users"]) > len(before["users"])


@pytest.mark.parametrize("call", [2, 14])
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(finished, tmp_path, monkeypatch, call):
    if finished.method == "pretrain" or (call == 14 and finished.method != "pisa"):
        pytest.skip("trains no further")
    output = Path(shutil.copytree(finished.output, tmp_path / "outputs"))
    place = folder(output, finished.backbone, finished.method, 3)
    expected = learnt(place)
    shutil.rmtree(place)
    with monkeypatch.context() as patch:
        interrupt(patch, loop, "label_loss", call, when=in_training)
        assert finished.train("trainer.checkpoint_minutes=0", output=output).code == 130
    # What PISA's forward model had done is done again; it is short.
    in_forward = finished.method == "pisa" and call == 2
    again = finished.train("trainer.checkpoint_minutes=0", output=output)
    assert ("stage 3: training" if in_forward else "resuming") in again.err
    assert again.code == 0, again.err
    assert learnt(place) == expected


def test_equal_runs_leave_equal_bytes(base, tmp_path):
    for name in ("one", "other"):
        assert peso("train", "stage=1", *arguments(tmp_path / name, "lightgcn", "finetune")).code == 0
    one, other = (folder(tmp_path / name, "lightgcn", "finetune", 1) for name in ("one", "other"))
    assert learnt(one) == learnt(other)
    assert learnt(one) == learnt(folder(base("lightgcn"), "lightgcn", "finetune", 1))


def test_training_brings_the_loss_down(base, tmp_path):
    words = ("trainer.epochs=15", "trainer.patience=15", "trainer.learning_rate=0.03", "backbone.l2=0")
    assert peso("train", "stage=1", *arguments(tmp_path, "bpr", "finetune", *words)).code == 0
    losses = curve(folder(tmp_path, "bpr", "finetune", 1), "loss")
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ("backbone=bpr", "method=peso"),
            ("backbone=bpr with method=peso: adapter=evolving is of language models", "method=two_tower_finetune"),
        ),
        (("backbone=tiny", "method=two_tower_pisa"), ("backbone=tiny", "adapter=towers is of two-tower models")),
        (("backbone=bpr", "method=two_tower_pisa", "regularizer=l2"), ("regularizer=l2 is of language models",)),
        (("backbone=tiny", "method=single", "regularizer=pisa"), ("regularizer=pisa is of two-tower models",)),
        (("backbone=bpr", "method=two_tower_pretrain", "regularizer=contrastive"), ("trains nothing",)),
        *(
            (
                ("backbone=lightgcn", "method=two_tower_finetune", word),
                (f"{word}: backbone=lightgcn", "batch=4096"),
            )
            for word in (
                "trainer.batch_tokens=512",
                "trainer.accumulation=2",
                "trainer.packing=example",
                "trainer.temperature=0.5",
            )
        ),
        (("backbone=sasrec", "method=two_tower_finetune", "trainer.accumulation=2"), ("trainer.accumulation=2",)),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(words, parts, tmp_path):
    refused(peso("train", "stage=2", *words, f"output={tmp_path}", "tracker=none"), *parts)
    assert not list(tmp_path.iterdir())


def test_a_strategy_that_needs_vectors_of_users_refuses_sasrec(base, tmp_path):
    output = Path(shutil.copytree(base("sasrec"), tmp_path / "outputs"))
    answer = peso("train", "stage=2", *arguments(output, "sasrec", "pisa"))
    refused(answer, "regularizer=pisa with backbone=sasrec", "no vectors of users", "bpr or lightgcn")
    assert [path.name for path in (output / "synthetic" / "sasrec").iterdir()] == ["base"]


def test_a_bench_of_language_models_refuses_a_two_tower_model():
    refused(peso("bench", "decode", "backbone=bpr", "method=two_tower_finetune"), "backbone=bpr: is a two-tower model")


def test_recommendations_evaluations_and_lists_of_runs(base):
    output = base("lightgcn")
    words = arguments(output, "lightgcn", "finetune")
    scored = peso("evaluate", "stage=1", "--json", *words, "evaluation=next_stage")
    assert scored.code == 0, scored.err
    asked = peso("data", "examples", "--stage", 1, "--split", "test", *words).out.splitlines()[0]
    user = json.loads(asked)["user"]
    known = peso("recommend", "stage=1", *words, "--user", user, "--k", 12, "--json").document["items"]
    history = json.loads(asked)["history"]
    strange = peso("recommend", "stage=1", *words, "--history", ",".join(history), "--k", 12, "--json").document[
        "items"
    ]
    assert len({row["item"] for row in known}) == len({row["item"] for row in strange}) == 12
    assert known != strange
    assert not {row["item"] for row in known} & set(history)
    assert "lightgcn" in peso("runs", "--output", output).out


@pytest.fixture(scope="module")
def swept(base, tmp_path_factory):
    """An output folder with a sweep of two-tower runs, and a language model on the same users."""
    output = Path(shutil.copytree(base("lightgcn"), tmp_path_factory.mktemp("swept") / "outputs"))
    words = [word for word in arguments(output, "lightgcn", "finetune") if not word.startswith("method=")]
    grid = ("method=two_tower_finetune,two_tower_contrastive", "regularizer.strength=0.1,0.2", "stage=2")
    answer = peso("sweep", *words, *grid)
    assert answer.code == 0, answer.err
    answer = peso("train", "stage=2", "method=single", f"output={output}", *SMALL)
    assert answer.code == 0, answer.err
    return output


def test_a_sweep_leaves_out_what_a_strategy_has_not(swept):
    found = [path.parts[-5] for path in swept.glob("synthetic/lightgcn/*/*/seed_1/stage_2/DONE")]
    assert sorted(found) == ["two_tower_contrastive", "two_tower_contrastive", "two_tower_finetune"]


def test_the_table_sets_two_tower_runs_beside_language_models(swept):
    answer = peso("tables", "two_tower", "--output", swept, "--format", "csv")
    assert answer.code == 0, answer.err
    for row in (
        "two_tower_finetune, lightgcn",
        "two_tower_contrastive (regularizer.strength=0.2), lightgcn",
        "single, tiny",
    ):
        assert row in answer.out
    assert "against single, tiny" in answer.out
    alone = peso("tables", "two_tower", "--output", swept, "--format", "csv", "backbone=lightgcn")
    assert "against two_tower_finetune" in alone.out
    refused(peso("tables", "two_tower", "--output", swept, "backbone=tiny"), "needs a method whose name begins with")


def test_the_report_says_how_two_tower_models_rank(swept, tmp_path):
    answer = peso("report", "--output", swept, "--to", tmp_path / "report.html", "backbone=lightgcn")
    assert answer.code == 0, answer.err
    assert "of all items, those that a user had left out, top 10" in (tmp_path / "report.html").read_text()
