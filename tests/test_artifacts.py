import json
import os
import sys
from importlib.metadata import version

import pytest
import torch
import yaml

from peso_cli import artifacts
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


REPAIR = "; peso train --repair trains it anew (or move the stage's folder away)"


def failure(call, kind, *parts, ending=""):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(ending)
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
    ending = "; give another output= (or, behind stage 1, another variant=), or move the folder away"
    failure(lambda: artifact.match("f2"), InputError, "other settings or other data", ending=ending)
    artifact.match("f1")


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", "\xff"])
@pytest.mark.parametrize("name", ["lineage.json", "metrics.json"])
def test_documents_that_are_missing_or_damaged_are_one_line(artifact, name, content):
    path = artifact.folder / name
    path.unlink() if content is None else path.write_text(content, encoding="latin-1")
    failure(lambda: artifact.document(name), RunError, str(path), ending=REPAIR)
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
    ending = f"7, this version of peso ({version('peso')}) has format 1; use the version that made it "
    ending += "(it isn't recorded), or give another output="
    failure(lambda: artifact.verify("f1"), InputError, f"{path}: is of format {ending}", ending=ending)


@pytest.mark.parametrize(
    ("versions", "maker"),
    [
        ({"peso": "0.3", "torch": "9"}, "peso 0.3"),
        ({"torch": "9"}, "it isn't recorded"),
        (["peso"], "it isn't recorded"),
    ],
)
def test_a_stage_of_another_format_says_what_made_it(tmp_path, versions, maker):
    artifact = Artifact(tmp_path / "stage_1")
    artifact.begin({}, {**LINEAGE, "format": 7, "versions": versions})
    failure(artifact.check_format, InputError, f"use the version that made it ({maker}), or give another output=")


@pytest.mark.parametrize("name", ["adapter/adapter_model.bin", "model/model.safetensors", "state.safetensors"])
def test_what_was_added_to_the_weights_is_found(artifact, name):
    path = artifact.folder / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    failure(lambda: artifact.verify("f1"), RunError, f"{path}: was added since", "remove it", "--repair")


@pytest.mark.parametrize("name", ["adapter/.hidden", "adapter/deeper/.hidden", "model/.hidden"])
def test_hidden_files_beside_the_weights_are_none_of_them(artifact, name):
    path = artifact.folder / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    artifact.verify("f1")
    assert artifact.stored_bytes == len((artifact.folder / "adapter/adapter_model.safetensors").read_bytes())


def test_weights_in_folders_of_their_own_are_checked_and_counted(artifact):
    deeper = artifact.folder / "adapter/deeper"
    deeper.mkdir()
    (deeper / "more.safetensors").write_text("more")
    artifact.finish()
    artifact.verify("f1")
    assert artifact.stored_bytes == 4 + len((artifact.folder / "adapter/adapter_model.safetensors").read_bytes())
    (deeper / "more.safetensors").write_text("less")
    failure(lambda: artifact.verify("f1"), RunError, "adapter/deeper/more.safetensors: changed since", ending=REPAIR)


def test_parts_of_a_method_leave_tensors_each_under_its_name(tmp_path):
    artifact = Artifact(tmp_path)
    artifact.write_state(adapter={}, regularizer={})
    assert list(tmp_path.iterdir()) == []
    assert artifact.read_state("adapter") == {}
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3])
    artifact.write_state(adapter={"a.A": one, "adapter:": two}, regularizer={"a.A": two})
    found = artifact.read_state("adapter")
    assert found.keys() == {"a.A", "adapter:"}
    assert torch.equal(found["a.A"], one)
    assert torch.equal(found["adapter:"], two)
    assert artifact.read_state("regularizer")["a.A"].tolist() == [3]
    assert artifact.read_state("adapt") == {}


def test_a_stage_that_diverged_is_refused_with_what_is_known_and_how_to_go_on(tmp_path):
    artifact = Artifact(tmp_path / "stage_2")
    artifact.begin({}, LINEAGE)
    artifact.refuse_diverged()
    assert not artifact.diverged
    artifact.mark_diverged("the loss was nan at step 3", {"step": 3})
    assert artifact.diverged
    mark = artifact.folder / "DIVERGED"
    assert json.loads(mark.read_text()) == {"format": 1, "why": "the loss was nan at step 3", "step": 3}
    parts = (f"{artifact.folder}: diverged", "; the loss was nan at step 3; to try", f"remove {mark} (it goes on from")
    failure(artifact.refuse_diverged, RunError, *parts, ending=REPAIR.removeprefix("; "))


def test_a_stage_that_diverged_without_a_reason_is_refused_as_well(tmp_path):
    artifact = Artifact(tmp_path / "stage_2")
    artifact.begin({}, LINEAGE)
    (artifact.folder / "DIVERGED").write_text("{}")
    failure(artifact.refuse_diverged, RunError, "; nothing more is known; to try")


@pytest.mark.parametrize("size", range(9))
def test_a_log_must_reach_to_the_end_of_a_line_that_a_checkpoint_counts_on(tmp_path, size):
    (tmp_path / "log.jsonl").write_text("{}\n[7]\n")
    artifact = Artifact(tmp_path)
    if size in (0, 3, 7):
        artifact.check_log(size)
    else:
        failure(
            lambda: artifact.check_log(size),
            RunError,
            "lacks lines that the stage's checkpoint counts on",
            ending=REPAIR,
        )


def test_a_log_that_is_not_there_will_do_for_a_checkpoint_that_counts_on_none(tmp_path):
    Artifact(tmp_path).check_log(0)
    failure(lambda: Artifact(tmp_path).check_log(3), RunError, f"{tmp_path / 'log.jsonl'}: lacks lines")


def test_what_a_killed_process_left_is_removed_when_a_stage_begins_again(tmp_path):
    artifact = Artifact(tmp_path / "stage_1")
    artifact.begin({}, LINEAGE)
    (artifact.folder / "adapter").mkdir()
    (artifact.folder / "model").mkdir()
    left = [artifact.folder / name for name in (".checkpoint.safetensors.7.part", "adapter/.tmpXyZ", "model/.tmp")]
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
    ending = "; remove it to have its figures worked out again"
    failure(lambda: artifact.document("evaluations/abc.json"), RunError, str(path), ending=ending)


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


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout that the package lies in, and a git that writes down what it is asked and answers with a script."""
    (tmp_path / "checkout/peso_cli").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "checkout/peso_cli/artifacts.py"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def git(answer):
        path = tmp_path / "bin/git"
        path.write_text(
            f'#!{sys.executable}\nimport os, sys\nopen("asked", "w").write(" ".join(sys.argv[1:]))\n{answer}\n'
        )
        path.chmod(0o755)
        return tmp_path / "checkout"

    return git


@pytest.mark.skipif(os.name != "posix", reason="puts a script in the place of git")
def test_the_commit_is_that_of_the_checkout(checkout):
    folder = checkout("print('abc')")
    assert provenance()["git_commit"] is None  # the package isn't in a checkout
    assert not (folder / "asked").exists()
    (folder / ".git").mkdir()
    assert provenance()["git_commit"] == "abc"
    assert (folder / "asked").read_text() == "rev-parse HEAD"
    checkout("sys.exit('fatal: no commit yet')")
    assert provenance()["git_commit"] is None


def test_equal_values_are_equal_texts():
    assert canonical({"name": "größer"}) == '{"name":"größer"}'
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
