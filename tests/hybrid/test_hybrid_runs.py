"""Hybrids through the commands, over three stages of a small world."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands.running import SMALL, left, peso, refused
from hybrid.pools import ARGUMENTS
from test_stages import in_training, interrupt

from peso_cli import artifacts
from peso_cli.config.compose import compose
from peso_cli.evaluation import figures
from peso_cli.hybrid import stage
from peso_cli.stages import open_run
from peso_cli.training import loop

TRAIN = ("train", "stage=3", *ARGUMENTS)
HYBRIDS = "outputs/synthetic/hybrid"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory whose `outputs` has three stages of a hybrid; only to be read."""
    place = tmp_path_factory.mktemp("hybrid")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        answer = peso(*TRAIN)
    assert answer.code == 0, answer.err
    return place


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A copy of it that a test may change, as the working directory."""
    shutil.copytree(place / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def within(place, monkeypatch):
    """The working directory itself, to be read."""
    monkeypatch.chdir(place)
    return place


def folder(place, number, backbone="hybrid"):
    method = {"hybrid": "hybrid", "tiny": "single", "lightgcn": "two_tower_retrain"}[backbone]
    (found,) = place.glob(f"outputs/synthetic/{backbone}/{'base' if number == 1 else method}/*/seed_1/stage_{number}")
    return found


def document(place, number, backbone="hybrid", name="metrics.json"):
    return json.loads((folder(place, number, backbone) / name).read_text())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stage_has_its_own_figures_those_of_its_parts_alone_and_of_their_union(place, number):
    metrics = document(place, number)
    found = metrics["evaluated"][str(number)]["test"]
    for part, backbone in (("generative", "tiny"), ("two_tower", "lightgcn")):
        alone = document(place, number, backbone)["evaluated"][str(number)]["test"]
        for name, value in found[part].items():
            assert value == (pytest.approx(alone[name]) if name != "item" else pytest.approx(alone["item"]))
    for name in ("recall@5", "recall@10", "ndcg@10"):
        parts = [found["generative"][name], found["two_tower"][name]]
        assert max(parts) <= found["oracle"][name] <= sum(parts)
    assert 0 <= found["item"]["recall@10"] <= found["recall@10"] <= 1


@pytest.mark.parametrize("number", [1, 2, 3])
def test_on_validation_users_the_choice_is_no_worse_than_the_better_part(place, number):
    chosen = document(place, number)["fusion"]
    assert chosen == document(place, number, name="model/fusion.json")
    best = {name: found[chosen["by"]] for name, found in chosen["best"].items()}
    name = chosen["fusion"]["kind"]
    name = {"alone": "generative" if chosen["fusion"]["weight"] else "two_tower"}.get(name, name)
    assert best[name] == max(best.values()) >= max(best["generative"], best["two_tower"])


def test_predictions_hold_the_ranks_of_the_parts(place):
    rows = pq.read_table(folder(place, 3) / "predictions.parquet").to_pylist()
    for part, backbone in (("generative", "tiny"), ("two_tower", "lightgcn")):
        alone = pq.read_table(folder(place, 3, backbone) / "predictions.parquet").to_pylist()
        assert {row["user"]: row[f"{part}_rank"] for row in rows} == {row["user"]: row["rank"] for row in alone}
    for row in rows:
        assert len({item for item in row["items"] if item}) == sum(item is not None for item in row["items"])
        assert row["position"] == (row["items"].index(row["target"]) + 1 if row["target"] in row["items"] else None)


def test_lineage_names_the_parts_whose_fingerprints_are_in_its_own(place, within):
    run = open_run(compose(["stage=3", *ARGUMENTS]))
    lineage = document(place, 3, name="lineage.json")
    assert lineage["fingerprint"] == run.fingerprint(3)
    for role, backbone in (("generative", "tiny"), ("two_tower", "lightgcn")):
        part = document(place, 3, backbone, "lineage.json")
        assert lineage["parts"][role] == {
            "path": str(folder(place, 3, backbone).relative_to(place)),
            "fingerprint": part["fingerprint"],
        }
    for other in ("backbone.generative.method=replay", "backbone.two_tower.method=two_tower_finetune"):
        changed = open_run(compose(["stage=3", *ARGUMENTS, other]))
        assert changed.artifact(1) == run.artifact(1)
        assert changed.fingerprint(1) == run.fingerprint(1)
        assert changed.artifact(3) != run.artifact(3)
        assert changed.fingerprint(3) != run.fingerprint(3)


@pytest.mark.parametrize("setting", ["backbone.constant=10", "backbone.fusion=rescored", "decoding.normalise=level"])
def test_what_shapes_a_choice_shapes_every_stage_and_leaves_the_parts_alone(setting):
    one, other = (open_run(compose([*ARGUMENTS, *more])) for more in ([], [setting]))
    assert one.fingerprint(1) != other.fingerprint(1)
    for role in one.made_of:
        assert one.made_of[role].fingerprint(3) == other.made_of[role].fingerprint(3)


def test_a_part_is_the_run_that_it_is_by_itself(within):
    words = [word for word in SMALL if word.startswith(("backbone.", "trainer.", "dataset."))]
    answer = peso("train", "stage=3", "method=single", *words, "tracker=none", "device=cpu")
    assert answer.code == 0, answer.err
    assert "training" not in answer.err


MOMENTS = {
    "in a part's training": (("lightgcn", "hybrid"), lambda m: interrupt(m, loop, "label_loss", 4, when=in_training)),
    "in the choice": (("hybrid",), lambda m: interrupt(m, stage, "choose", 1)),
    "behind the choice": (("hybrid",), lambda m: interrupt(m, figures, "write_predictions", 1)),
    "before the mark": (("hybrid",), lambda m: interrupt(m, artifacts.Artifact, "finish", 1)),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(place, here, monkeypatch, moment):
    backbones, interrupted = MOMENTS[moment]
    for backbone in backbones:
        shutil.rmtree(folder(here, 3, backbone))
    with monkeypatch.context() as patch:
        interrupted(patch)
        assert peso(*TRAIN).code == 130
    again = peso(*TRAIN)
    assert again.code == 0, again.err
    assert left(here / "outputs") == left(place / "outputs")


@pytest.mark.parametrize("fusion", ["reciprocal_rank", "calibrated", "rescored"])
def test_a_fusion_that_is_named_is_the_only_one_tried(here, fusion):
    answer = peso(*TRAIN, f"backbone.fusion={fusion}", "stage=2", "--json")
    assert answer.code == 0, answer.err
    found = answer.document["stages"]["2"]["fusion"]
    assert found["best"].keys() == {"generative", "two_tower", fusion}
    assert found["fusion"]["kind"] in (fusion, "alone")


@pytest.mark.parametrize("protocol", ["evaluation.split=valid", "evaluation=next_stage", "evaluation=matrix"])
def test_a_hybrid_is_evaluated_by_every_protocol(here, protocol):
    answer = peso("evaluate", "stage=2", *ARGUMENTS, protocol, "--json")
    assert answer.code == 0, answer.err
    scored = answer.document["evaluated"]
    split = {"evaluation.split=valid": "valid", "evaluation=next_stage": "next"}.get(protocol, "test")
    for on in {"valid": "2", "next": "3", "test": "13"}[split]:
        assert scored[on][split].keys() >= {"recall@10", "generative", "two_tower", "oracle"}
    if split == "valid":
        chosen = answer.document["fusion"]
        best = max(found[chosen["by"]] for found in chosen["best"].values())
        assert scored["2"]["valid"][chosen["by"]] == pytest.approx(best)


def test_a_hybrid_recommends_to_users_and_for_histories(within):
    asked = json.loads(peso("data", "examples", "--stage", 3, "--split", "test", *ARGUMENTS).out.splitlines()[0])
    for whom in (("--user", asked["user"]), ("--history", ",".join(asked["history"]))):
        answer = peso("recommend", "stage=3", *ARGUMENTS, *whom, "--k", 12, "--json")
        assert answer.code == 0, answer.err
        items = answer.document["items"]
        assert len({row["item"] for row in items}) == 12
        scores = [row["score"] for row in items]
        assert scores == sorted(scores, reverse=True)
    refused(peso("recommend", "stage=3", *ARGUMENTS, "--history", "item1", "--k", 31), "backbone.candidates=30", "31")


def test_a_damaged_part_is_named_and_trained_anew(here):
    file = folder(here, 2, "lightgcn") / "model" / "towers.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    refused(peso("evaluate", "stage=2", *ARGUMENTS), str(file.relative_to(here)), "changed since", code=1)
    answer = peso(*TRAIN, "--repair")
    assert answer.code == 0, answer.err
    assert "moved aside" in answer.err


def test_a_damaged_choice_is_named(here):
    file = folder(here, 2) / "model" / "fusion.json"
    file.write_text("{}")
    refused(peso("evaluate", "stage=2", *ARGUMENTS), str(file.relative_to(here)), "changed since", code=1)


def test_a_sweep_over_methods_of_a_part_shares_what_is_alike(here):
    words = ("backbone.generative.method=single,peso", "stage=2", "--json")
    plan = peso("sweep", *ARGUMENTS, *words, "--plan")
    assert plan.code == 0, plan.err
    answer = peso("sweep", *ARGUMENTS, *words)
    assert answer.code == 0, answer.err
    assert sorted(path.parts[-2] for path in Path(HYBRIDS).glob("*/*/seed_1/stage_2")) == ["seed_1"] * 2
    assert len(list(Path(HYBRIDS).glob("base/*"))) == 1
    assert len(list(Path("outputs/synthetic/tiny/peso").glob("*/seed_1/stage_2/DONE"))) == 1
    table = peso("tables", "hybrid", "stage=2", "--format", "csv")
    assert table.code == 0, table.err
    assert "hybrid (backbone.generative.method=peso)" in table.out
    assert "oracle union" in table.out


def test_the_preset_of_the_table_is_a_sweep_of_hybrids(tmp_path):
    answer = peso("sweep", "experiment=hybrid", *ARGUMENTS, f"output={tmp_path}", "--plan", "--json")
    assert answer.code == 0, answer.err
    assert len(answer.document["runs"]) == 6


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("backbone.generative.method=pesso",), ("backbone.generative: method=pesso", "did you mean peso?")),
        (("backbone.two_tower.backbone=lightgnc",), ("backbone.two_tower: backbone=lightgnc", "lightgcn")),
        (("backbone.two_tower.backbone=tiny",), ("backbone.two_tower: backbone=tiny is none", "two-tower model")),
        (("backbone.generative.backbone=hybrid",), ("backbone.generative: backbone=hybrid is none", "language model")),
        (("backbone.two_tower.method=single",), ("backbone.two_tower: backbone=lightgcn with method=single",)),
        (("backbone.generative.settings=['trainer.epoch=2']",), ("backbone.generative: unknown key", "epochs?")),
        (("backbone.two_tower.settings=['trainer.epochs=-1']",), ("backbone.two_tower: trainer.epochs=-1",)),
        (("backbone.two_tower.settings=['seed=2']",), ("backbone.two_tower.settings: seed=2", "the hybrid itself")),
        (("backbone.two_tower.settings=['backbone=bpr']",), ("backbone.two_tower.settings: backbone=bpr",)),
        (("backbone.generative.settings=['x']",), ("backbone.generative.settings: x",)),
        (("trainer.epochs=3",), ("trainer.epochs=3: a hybrid trains nothing itself", "backbone.generative.settings")),
        (("backbone.candidates=31",), ("decoding.beams=30: must be at least backbone.candidates=31",)),
        (("backbone.candidates=9",), ("backbone.candidates=9: must be at least 10",)),
        (("backbone.fusion=mean",), ("backbone.fusion=mean", "reciprocal_rank")),
        (("adapter=evolving",), ("backbone=hybrid with method=hybrid: adapter=evolving is of language models",)),
        (("backbone=tiny", "backbone.hidden=32"), ("adapter=fused is of hybrids",)),
        (("method=peso", "backbone=hybrid"), ("backbone=hybrid with method=peso", "give method=hybrid")),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(words, parts, tmp_path):
    answer = peso("train", "stage=2", "method=hybrid", *words, f"output={tmp_path}", "tracker=none", "device=cpu")
    refused(answer, *parts)
    assert not list(tmp_path.iterdir())


def test_what_looks_into_one_model_refuses_a_hybrid(within):
    refused(peso("bench", "decode", "method=hybrid"), "backbone=hybrid: is a hybrid")
    refused(peso("inspect", "stage=3", *ARGUMENTS), "hybrid")
