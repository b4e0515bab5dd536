"""The whole way by the command line: raw interactions, stages, semantic IDs, training, and a stage appended later."""

import json

import numpy as np
import pytest
from commands.running import SMALL, WORLD, files_of, peso, refused

MODEL = (*(word for word in SMALL if word not in WORLD), "trainer.epochs=1", "decoding.beams=10", "prompt.window=8")
SPLIT = ("split.shares=[0.6,0.4]", "split.min_events=3", "cleaning.core_users=3", "cleaning.core_items=1")
DAY = 86_400


def write_log(path, first_day, days, items, seed):
    """A log in which each of 30 users takes an item a day."""
    rng = np.random.default_rng(seed)
    rows = [(f"u{u}", f"i{rng.integers(items)}", (first_day + d) * DAY + u) for d in range(days) for u in range(30)]
    path.write_text("who,what,when\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    return path


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder with a log, in which commands run."""
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.csv", 15_000, 20, 40, 0)
    texts = "".join(f"i{n},Item number {n} of kind {n % 5}\n" for n in range(50))
    (tmp_path / "items.csv").write_text("what,title\n" + texts)
    return tmp_path


def done(*words):
    answer = peso(*words)
    assert answer.code == 0, answer.err
    return answer


def build(*more):
    columns = ("user=who", "item=what", "timestamp=when")
    names = [f"dataset.columns.{column}" for column in columns] + ["dataset.item_columns.item=what"]
    names += [f"dataset.item_columns.{name}=null" for name in ("description", "brand", "categories")]
    files = ("dataset.interactions=[log.csv]", "dataset.items=[items.csv]")
    return done("data", "build", "dataset=csv", "dataset.name=shop", *files, *names, *SPLIT, *more, "--json").document


BUILT = ("dataset=built", "dataset.name=shop")
IDS = ("embedding=cooccurrence", "embedding.width=8", "quantizer.levels=2", "quantizer.codes=8", "--json")


def trained(stage, *more):
    return done("train", f"stage={stage}", "method=peso", *BUILT, *MODEL, *more)


def test_from_a_log_to_a_trained_stage_and_on_with_an_appended_one(shop):
    assert [stage["stage"] for stage in build()["stages"]] == [1, 2]
    assert done("tokenize", *BUILT, *IDS).document["did"] == "made"
    trained(2)
    before = files_of(shop / "outputs")

    write_log(shop / "next.csv", 15_020, 5, 50, 1)
    appended = done("data", "append", "next.csv", "--items", "items.csv", *BUILT, "--json").document
    assert appended["stage"]["stage"] == 3
    assert appended["stage"]["new_items"] > 0
    after = files_of(shop / "outputs")
    assert {name: after[name] for name in before} == before

    lines = trained(3).err.splitlines()
    assert [line.split(" outputs")[0] for line in lines if "outputs" in line] == [
        "stage 1: reusing",
        "stage 2: reusing",
        "stage 3: training",
    ]
    (lineage,) = (json.loads(p.read_text()) for p in (shop / "outputs" / "shop").rglob("stage_3/lineage.json"))
    assert (lineage["data"]["recommended"], lineage["data"]["fit_on"]) == ("visible", "stage_1")


def test_what_is_not_visible_yet_is_not_recommended(shop):
    build()
    write_log(shop / "next.csv", 15_020, 5, 50, 1)
    done("data", "append", "next.csv", *BUILT)
    done("tokenize", *BUILT, *IDS)
    known = {f"i{n}" for n in range(40)}
    trained(2)
    arguments = ("stage=2", "method=peso", *BUILT, *MODEL, "--user", "u1", "--k", "10", "--json")
    assert {row["item"] for row in done("recommend", *arguments).document["items"]} <= known


def test_exported_stages_hold_the_same_examples(shop):
    build()
    done("tokenize", *BUILT, *IDS)
    done("data", "export", "--output", "released", *BUILT)
    released = ("dataset=released", "dataset.name=shop", "dataset.path=released")
    for words in (("data", "examples", "--stage", "2"), ("data", "stats", "--json"), ("data", "drift", "--json")):
        assert done(*words, *BUILT).out == done(*words, *released).out


def test_a_second_build_is_the_first_one_and_another_needs_another_name(shop):
    before = build()
    bytes_before = files_of(shop / "outputs")
    assert build() == {**before, "reused": True}
    assert files_of(shop / "outputs") == bytes_before
    wanted = ("dataset.interactions=[log.csv]", "dataset.columns.user=who", "dataset.columns.item=what")
    other = ("dataset=csv", "dataset.name=shop", *wanted, "dataset.columns.timestamp=when", "cleaning.core_users=4")
    refused(peso("data", "build", *other), "choose another dataset.name or dataset.path")


def test_what_is_missing_on_the_way_is_named(shop):
    refused(peso("train", *BUILT), "peso data build")
    refused(peso("tokenize", *BUILT), "peso data build")
    refused(peso("data", "append", "next.csv", *BUILT), "peso data build")
    refused(peso("tokenize"), "dataset=built")
    build()
    refused(peso("train", *BUILT), "peso tokenize dataset=built dataset.name=shop")
    refused(peso("data", "append", *BUILT), "no file with new interactions")
    refused(peso("data", "append", "nowhere.csv", *BUILT), "nowhere.csv", "no such file")
    refused(peso("data", "append", "log.csv", *BUILT), "earlier than", "when stage 2 ends")
    done("tokenize", *BUILT, *IDS)
    refused(peso("tokenize", *BUILT, *IDS[:-1], "quantizer.codes=4"), "quantizer.codes=8, not 4", "tokenizer.name=NAME")
