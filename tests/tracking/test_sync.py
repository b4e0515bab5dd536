"""What becomes of recorded runs with servers that work, and with those that don't."""

import shutil
import sys
import tempfile

import psutil
import pytest
from fake_wandb import KEY, absent, answer_with, die_after, fail_at, hanging, serving
from recordings import POINTS, record

from peso_cli.errors import InputError, RunError
from peso_cli.tracking.recorded import recorded_run
from peso_cli.tracking.sync import sync


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A stage's folder with a recorded run; only to be read."""
    return record(tmp_path_factory.mktemp("recorded") / "stage_1")


@pytest.fixture
def run(recorded, tmp_path, account):
    """A copy of the recorded run."""
    return recorded_run(shutil.copytree(recorded, tmp_path / "stage_1"))


def sync_with(server, run, monkeypatch, patience=30.0):
    """Send a run to a server; return what became of it."""
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    (synced,) = sync([run], patience, lambda done: None)
    assert psutil.Process().children(recursive=True) == []
    return synced


def arrives_whole(run, monkeypatch):
    """Send a run to a server that works, and check that all of it gets there."""
    with serving() as server:
        synced = sync_with(server, run, monkeypatch)
    (told,) = server.runs.values()
    assert synced.error is None
    assert synced.url == f"{server.url}/somebody/peso/runs/{run.id}"
    assert (told.project, told.group, told.name, told.exit_code) == ("peso", "g", "stage_1", 0)
    assert told.config["seed"] == 3
    assert told.points("step") == POINTS
    assert len(told.points("samples")) == 1
    assert any("samples" in name for name in told.files)
    assert "CommitArtifact" in server.requests
    assert run.synced.exists()


def test_a_server_that_works_gets_the_whole_run_again_and_again(run, account, monkeypatch, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    arrives_whole(run, monkeypatch)
    arrives_whole(run, monkeypatch)
    assert list(scratch.iterdir()) == []
    assert list(account.iterdir()) == []


def test_what_the_environment_asks_of_runs_is_not_asked_of_sending(run, monkeypatch):
    for name, value in {"MODE": "disabled", "SILENT": "true", "QUIET": "true", "PROJECT": "x", "ENTITY": "x"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    arrives_whole(run, monkeypatch)


def some(cases):
    """The first case always, the others with --long."""
    return [cases[0], *(pytest.param(*case, marks=pytest.mark.long) for case in cases[1:])]


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (absent, "connection refused"),
        *some([(lambda status=status: serving(answer_with(status)), str(status)) for status in (401, 403, 500, 429)]),
        # Parts of it that W&B's own command ends without a word about:
        *some(
            [
                (lambda part=part, status=status: serving(fail_at(part, status)), str(status))
                for part, status in (("storage", 403), ("CommitArtifact", 500), ("CreateRunFiles", 400))
            ]
        ),
        *some([(lambda count=count: serving(die_after(count)), "EOF") for count in (3, 1, 2, 5, 8, 11, 13)]),
    ],
)
def test_a_run_that_did_not_get_through_whole_is_unsent_and_goes_later(run, monkeypatch, server, reason):
    before = run.file.read_bytes()
    with server() as opened:
        synced = sync_with(opened, run, monkeypatch)
    assert synced.url is None
    assert reason in synced.error
    assert "\n" not in synced.error
    assert not run.synced.exists()
    assert run.file.read_bytes() == before
    arrives_whole(run, monkeypatch)


def test_a_server_that_hangs_is_given_up(run, monkeypatch):
    with hanging() as server:
        synced = sync_with(server, run, monkeypatch, patience=8)
    assert server.url in synced.error
    assert not run.synced.exists()


def test_a_server_that_lacks_what_newer_ones_have_will_do(run, monkeypatch):
    with serving(fail_at("ServerFeaturesQuery", 400)) as server:
        assert sync_with(server, run, monkeypatch).error is None


def test_a_server_that_repeats_the_key_does_not_get_it_shown(run, monkeypatch):
    with serving(lambda *request: (400, {"errors": [{"message": f"no such key: {KEY}"}]})) as server:
        synced = sync_with(server, run, monkeypatch)
    assert "no such key: ..." in synced.error
    assert KEY not in synced.error


def test_when_the_command_does_not_begin_nothing_is_taken_for_sent(run, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    with absent() as server, pytest.raises(RunError, match="wandb sync didn't begin: -m wandb sync"):
        sync_with(server, run, monkeypatch)


@pytest.mark.parametrize(("key", "part"), [("", "No API key"), ("my-secret", "WANDB_API_KEY invalid")])
def test_without_a_key_one_line_says_how_to_give_it(run, monkeypatch, key, part):
    monkeypatch.setenv("WANDB_API_KEY", key)
    with serving() as server, pytest.raises(InputError, match=part) as raised:
        sync_with(server, run, monkeypatch)
    assert "wandb login" in str(raised.value)
    assert "my-secret" not in str(raised.value)
    assert server.requests == []
