"""Whether W&B will know who sends."""

from types import SimpleNamespace

import pytest

from peso_cli.tracking.account import without_account

ONLINE = SimpleNamespace(name="wandb", project="peso", mode="online", entity=None, samples=2)


def chosen(**differences):
    return SimpleNamespace(**{**vars(ONLINE), **differences})


@pytest.fixture
def home(account, monkeypatch):
    """A home folder without any key, and the usual server."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return account


def test_an_online_run_without_a_key_is_told_what_to_do(home):
    line = without_account(ONLINE)
    assert line.startswith("W&B: there is no key for api.wandb.ai")
    assert "WANDB_API_KEY" in line
    assert "peso track sync" in line
    assert "\n" not in line


@pytest.mark.parametrize("other", [{"mode": "offline"}, {"name": "none"}])
def test_who_does_not_send_needs_none(home, other):
    assert without_account(chosen(**other)) is None


def test_a_disabled_client_needs_none(home, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert without_account(ONLINE) is None


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_the_environment_may_hold_it(home, monkeypatch, name):
    monkeypatch.setenv(name, "something")
    assert without_account(ONLINE) is None


@pytest.mark.parametrize("file", [".netrc", "_netrc"])
def test_a_login_counts_for_its_own_server(home, monkeypatch, file):
    (home / file).write_text("machine api.wandb.ai login user password " + "1" * 40 + "\n")
    assert without_account(ONLINE) is None
    monkeypatch.setenv("WANDB_BASE_URL", "https://somebody:secret@wandb.example:8080/")
    line = without_account(ONLINE)
    assert "no key for wandb.example" in line
    assert "secret" not in line


def test_another_netrc_file_is_looked_in_alone(home, monkeypatch, tmp_path):
    (home / ".netrc").write_text("machine api.wandb.ai login user password " + "1" * 40 + "\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert without_account(ONLINE)


def test_a_broken_file_is_left_to_who_reads_it(home):
    (home / ".netrc").write_text("machine\n\nlogin ?\n")
    assert without_account(ONLINE) is None
