import json

import pytest
import yaml

from peso_cli.artifacts import Artifact, canonical, find_artifacts, provenance
from peso_cli.errors import InputError, RunError

FIGURES = {"stage": 1, "data": {"1": "d"}, "evaluated": {"1": {"test": {"recall@5": 0.5}}}, "groups": {}}
LINEAGE = {"fingerprint": "f1", "stage": 1, "method": "base", "seed": 1}


@pytest.fixture
def artifact(tmp_path):
    """A finished artifact with an adapter, predictions and figures."""
    made = Artifact(tmp_path / "data/tiny/base/v/seed_1/stage_1")
    made.begin({"stage": 1, "dataset": {"name": "größer"}}, LINEAGE)
    (made.folder / "adapter").mkdir()
    for name in ("adapter/adapter_model.safetensors", "predictions.parquet", "metrics.json", "log.jsonl"):
        (made.folder / name).write_text(json.dumps({"file": name}))
    (made.folder / "metrics.json").write_text(json.dumps(FIGURES))
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
    "name", ["adapter/adapter_model.safetensors", "predictions.parquet", "config.yaml", "lineage.json", "log.jsonl"]
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


def test_figures_on_other_users_may_be_added_to_a_finished_stage(artifact):
    path = artifact.folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["evaluated"]["1"]["valid"] = metrics["evaluated"]["2"] = {"recall@5": 0.1}
    metrics["data"]["2"] = "other"
    path.write_text(json.dumps(metrics))
    artifact.verify("f1")


@pytest.mark.parametrize("change", [{"recall@5": 0.6}, {"ndcg@5": 0.4}, {}])
def test_a_stages_own_figures_may_not_change(artifact, change):
    path = artifact.folder / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["evaluated"]["1"]["test"] = change
    path.write_text(json.dumps(metrics))
    failure(lambda: artifact.verify("f1"), RunError, str(path), "changed since", "--repair")


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


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_damaged_bit_of_the_mark_is_found(artifact):
    path = artifact.folder / "DONE"
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        failure(lambda: artifact.verify("f1"), RunError, str(path), "--repair")
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        failure(lambda: artifact.verify("f1"), RunError, str(path), "--repair")


def test_marks_without_a_checksum_of_their_own_are_still_read(artifact):
    path = artifact.folder / "DONE"
    mark = json.loads(path.read_text())
    path.write_text(json.dumps({"format": 1, "files": mark["files"]}))
    artifact.verify("f1")
    rewrite(artifact.folder / "metrics.json", added="later")
    artifact.verify("f1")
    (artifact.folder / "adapter/adapter_model.safetensors").write_text("")
    failure(lambda: artifact.verify("f1"), RunError, "adapter_model.safetensors: changed since")


def test_a_mark_of_another_format_says_which_and_what_to_do(artifact):
    path = artifact.folder / "DONE"
    mark = json.loads(path.read_text())
    path.write_text(json.dumps({"format": 7, "files": mark["files"]}))
    failure(lambda: artifact.verify("f1"), InputError, str(path), "format 7", "has format 1", "output=")


@pytest.mark.parametrize("name", ["adapter/adapter_model.bin", "model/model.safetensors", "state.safetensors"])
def test_what_was_added_to_the_weights_is_found(artifact, name):
    path = artifact.folder / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    failure(lambda: artifact.verify("f1"), RunError, f"{path}: was added since", "remove it", "--repair")


def test_what_a_killed_process_left_is_removed_when_a_stage_begins_again(tmp_path):
    artifact = Artifact(tmp_path / "stage_1")
    artifact.begin({}, LINEAGE)
    (artifact.folder / "adapter").mkdir()
    left = [artifact.folder / ".checkpoint.safetensors.7.part", artifact.folder / "adapter" / ".tmpXyZ"]
    for path in left:
        path.touch()
    artifact.begin({}, LINEAGE)
    assert not [path for path in left if path.exists()]


def test_what_is_set_aside_is_kept_under_a_name_of_its_own_and_is_no_artifact(tmp_path):
    artifact = Artifact(tmp_path / "stage_1")
    for number in (1, 2):
        artifact.begin({"n": number}, LINEAGE)
        assert artifact.set_aside() == tmp_path / f"stage_1.damaged-{number}"
    assert [yaml.safe_load((tmp_path / f"stage_1.damaged-{n}/config.yaml").read_text())["n"] for n in (1, 2)] == [1, 2]
    assert find_artifacts(tmp_path) == []


def test_damaged_figures_that_were_added_later_can_be_worked_out_again(artifact):
    path = artifact.folder / "evaluations" / "abc.json"
    path.parent.mkdir()
    path.write_text("{")
    failure(lambda: artifact.document("evaluations/abc.json"), RunError, str(path), "remove it")


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
