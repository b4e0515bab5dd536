"""`peso track sync`, and training with servers that are away."""

import json
import shutil

import psutil
import pytest
from commands.running import SMALL, files_of, peso, refused
from tracking.fake_wandb import KEY, absent, answer_with, hanging, serving
from tracking.recordings import record
from tracking.wandb_files import read_run

WORDS = tuple(word for word in SMALL if not word.startswith("tracker"))


pytestmark = pytest.mark.usefixtures("account")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with two finished runs and one that isn't; only to be read."""
    output = tmp_path_factory.mktemp("recorded")
    for stage in ("stage_1", "stage_2", "stage_3"):
        record(output / stage)
    (output / "stage_3" / "DONE").unlink()
    return output


@pytest.fixture
def output(recorded, tmp_path):
    """A copy of `recorded`."""
    return shutil.copytree(recorded, tmp_path / "outputs")


def sync(server, monkeypatch, *words):
    """Run the command with a server."""
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    return peso("track", "sync", *words)


def test_what_is_unsent_is_sent_once(output, monkeypatch):
    with serving() as server:
        first = sync(server, monkeypatch, output, "--json")
        again = sync(server, monkeypatch, output, "--json")
        shown = sync(server, monkeypatch, output)
    assert [first.code, again.code, shown.code] == [0, 0, 0]
    assert first.document["states"] == {"sent": 2, "unfinished": 1}
    assert again.document["states"] == {"sent before": 2, "unfinished": 1}
    assert server.requests.count("CommitArtifact") == 2
    for run in first.document["runs"][:2]:
        assert run["url"] == f"{server.url}/somebody/peso/runs/{run['run']}"
        assert run["folder"] in shown.out
        assert run["url"] in shown.out
    assert "2 sent before, 1 unfinished" in shown.out


@pytest.mark.parametrize(
    ("server", "words", "reason"),
    [
        (absent, (), "connection refused"),
        (lambda: serving(answer_with(401)), (), "401"),
        (hanging, ("--patience", "5"), "http://127.0.0.1"),
    ],
)
def test_one_line_names_what_stays_unsent(output, monkeypatch, server, words, reason):
    with server() as opened:
        answer = sync(opened, monkeypatch, output, *words)
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert line.startswith("peso: W&B: 2 runs stay unsent (")
    for part in (reason, str(output / "stage_1"), str(output / "stage_2"), f"peso track sync {output}"):
        assert part in line
    assert KEY not in answer.out + answer.err
    with serving() as server:
        assert sync(server, monkeypatch, output, "--json").document["states"]["sent"] == 2


def test_a_missing_key_is_the_users_to_give(output, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    before = files_of(output)
    with serving() as server:
        refused(sync(server, monkeypatch, output), "No API key", "wandb login", "WANDB_API_KEY")
    assert files_of(output) == before


def test_folders_and_overrides_name_runs(output, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        found = sync(server, monkeypatch, "outputs/stage_1", "--json").document
        assert [run["folder"] for run in found["runs"]] == ["outputs/stage_1"]
        assert sync(server, monkeypatch, "--json").document["states"] == {"sent before": 1, "sent": 1, "unfinished": 1}
        answer = sync(server, monkeypatch, *SMALL, f"output={output}", "stage=2", "method=single")
    assert (answer.code, answer.out) == (0, "nothing is recorded for W&B here; runs of tracker=wandb are\n")


def test_wrong_input_is_refused(tmp_path):
    refused(peso("track", "sync", tmp_path / "nowhere"), "nowhere: no such folder")
    refused(peso("track", "sync", "methud=peso"), "methud")
    refused(peso("track", "sync", "--foo"), "no such option: --foo")
    assert peso("track", "sync", "--patience", "0").code == 2


# Training


def stage_folder(output):
    (folder,) = output.glob("synthetic/tiny/base/*/seed_1/stage_1")
    return folder


@pytest.fixture(scope="module")
def untracked(tmp_path_factory):
    """The folder of a stage that was trained without tracking."""
    output = tmp_path_factory.mktemp("untracked")
    assert peso("train", *SMALL, f"output={output}").code == 0
    return stage_folder(output)


def test_a_run_that_could_not_be_sent_says_so_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    answer = peso("train", *WORDS, "tracker.mode=online", f"output={tmp_path}")
    assert answer.code == 0
    told = [line for line in answer.err.splitlines() if line.startswith(("stage 1: training", "W&B: there is no key"))]
    assert [line[:3] for line in told] == ["sta", "W&B"]


@pytest.mark.parametrize("server", [hanging, absent, serving])
def test_a_run_is_the_same_whatever_the_server_and_is_sent_later(tmp_path, untracked, monkeypatch, server):
    words = (*WORDS, "tracker.mode=online", f"output={tmp_path}")
    with server() as opened:
        monkeypatch.setenv("WANDB_BASE_URL", opened.url)
        answer = peso("train", *words)
        assert (answer.code, "W&B" in answer.err, KEY in answer.out + answer.err) == (0, False, False)
        if server is serving:
            psutil.wait_procs(psutil.Process().children(), timeout=200)
        for process in psutil.Process().children(recursive=True):
            process.kill()
    folder = stage_folder(tmp_path)
    assert (folder / "log.jsonl").read_bytes() == (untracked / "log.jsonl").read_bytes()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [{"event": "train", **point} for point in read_run(folder).points("step")] == lines[:-1]
    assert KEY.encode() not in b"".join(files_of(tmp_path).values())
    with serving() as later:
        states = sync(later, monkeypatch, *words, "--json").document["states"]
    assert states == ({"sent before": 1} if server is serving else {"sent": 1})
