import json

import pytest
import yaml

from peso_cli.artifacts import Artifact, canonical, find_artifacts, provenance
from peso_cli.errors import InputError, RunError

LINEAGE = {"fingerprint": "f1", "stage": 1, "method": "base", "seed": 1}


@pytest.fixture
def artifact(tmp_path):
    """A finished artifact with an adapter, predictions and figures."""
    made = Artifact(tmp_path / "data/tiny/base/v/seed_1/stage_1")
    made.begin({"stage": 1, "dataset": {"name": "größer"}}, LINEAGE)
    (made.folder / "adapter").mkdir()
    for name in ("adapter/adapter_model.safetensors", "predictions.parquet", "metrics.json", "log.jsonl"):
        (made.folder / name).write_text(json.dumps({"file": name}))
    made.checkpoint.write_text("unfinished")
    made.finish()
    return made


def failure(call, kind, *parts):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_stage_that_has_begun_is_not_finished(tmp_path):
    artifact = Artifact(tmp_path / "stage_1")
    assert not artifact.begun
    assert not artifact.finished
    artifact.begin({"seed": 1}, LINEAGE)
    assert artifact.begun
    assert not artifact.finished
    assert artifact.lineage() == LINEAGE


def test_the_config_is_kept_as_yaml_in_its_own_order(artifact):
    text = (artifact.folder / "config.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load(text)) == ["stage", "dataset"]
    assert "größer" in text


def test_finishing_marks_and_drops_the_checkpoint(artifact):
    assert artifact.finished
    assert not artifact.checkpoint.exists()
    artifact.verify("f1")


def test_an_artifact_says_which_weights_it_holds(artifact):
    assert artifact.adapter == artifact.folder / "adapter"
    assert artifact.weights is None
    (artifact.folder / "model").mkdir()
    assert artifact.weights == artifact.folder / "model"


@pytest.mark.parametrize(
    "name", ["adapter/adapter_model.safetensors", "predictions.parquet", "config.yaml", "lineage.json"]
)
def test_what_must_not_change_is_checked(artifact, name):
    path = artifact.folder / name
    whole = path.read_text()
    path.write_text(whole + " ")
    failure(lambda: artifact.verify("f1"), RunError, str(path), "changed since", "move the stage's folder away")
    path.write_text(whole)
    artifact.verify("f1")
    if name != "lineage.json":
        path.unlink()
        failure(lambda: artifact.verify("f1"), RunError, str(path), "missing", "move the stage's folder away")


def test_figures_may_be_added_to_a_finished_stage(artifact):
    (artifact.folder / "metrics.json").write_text("{}")
    artifact.verify("f1")


def test_another_fingerprint_is_the_users_mistake(artifact):
    failure(lambda: artifact.verify("f2"), InputError, str(artifact.folder), "other settings or other data", "output=")
    failure(lambda: artifact.match("f2"), InputError, "other settings or other data")
    artifact.match("f1")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", "\xff"])
@pytest.mark.parametrize("name", ["lineage.json", "metrics.json"])
def test_documents_that_are_missing_or_damaged_are_one_line(artifact, name, content):
    path = artifact.folder / name
    path.unlink() if content is None else path.write_text(content, encoding="latin-1")
    failure(lambda: artifact.document(name), RunError, str(path), "move the stage's folder away")
    failure({"lineage.json": artifact.lineage, "metrics.json": artifact.metrics}[name], RunError, str(path))


def test_a_damaged_mark_is_a_failure(artifact):
    (artifact.folder / "DONE").write_text("")
    failure(lambda: artifact.verify("f1"), RunError, "DONE", "can't be read")


def test_all_artifacts_under_a_folder_are_found_in_order(tmp_path, artifact):
    other = Artifact(tmp_path / "data/tiny/base/a/seed_1/stage_1")
    other.begin({}, LINEAGE)
    (tmp_path / "elsewhere").mkdir()
    assert find_artifacts(tmp_path) == [other, artifact]
    assert find_artifacts(tmp_path / "elsewhere") == []


def test_provenance_names_versions_and_a_commit_or_none():
    found = provenance()
    assert {"peso", "torch", "transformers", "peft"} <= set(found["versions"])
    assert found["git_commit"] is None or len(found["git_commit"]) == 40


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance()["git_commit"] is None


def test_equal_values_are_equal_texts():
    assert canonical({"b": 1, "a": [None, True]}) == canonical({"a": [None, True], "b": 1}) == '{"a":[null,true],"b":1}'


def test_discarding_leaves_what_others_made_and_the_output_folder(tmp_path):
    output = tmp_path / "outputs"
    mine, other = (Artifact(output / "data" / "tiny" / m / "v" / "seed_1" / "stage_1") for m in ("base", "single"))
    for artifact in (mine, other):
        artifact.begin({}, {})
    mine.discard()
    assert other.begun
    assert not (output / "data" / "tiny" / "base").exists()
    other.discard()
    assert output.is_dir()
    assert list(output.iterdir()) == []
