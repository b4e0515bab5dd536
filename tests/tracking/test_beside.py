"""The process that sends beside an online run."""

from dataclasses import dataclass

import psutil
import pytest
from fake_wandb import serving
from recordings import stands

from peso_cli.locks import hold
from peso_cli.tracking.beside import send_beside


@dataclass(frozen=True)
class Choice:
    """The `tracker` group, as far as it matters."""

    name: str = "wandb"
    project: str = "peso"
    mode: str = "online"
    entity: str | None = None
    samples: int = 2


def sends(process, output):
    """Whether a process is still at work for some outputs."""
    try:
        return str(output) in process.cmdline()
    except psutil.Error:
        return False


def said(output):
    """What the process beside the run has left in its log, once it has ended."""
    # Other tests leave processes that don't end by themselves.
    psutil.wait_procs([child for child in psutil.Process().children() if sends(child, output)], timeout=120)
    return (output / "sending.log").read_text()


def test_online_runs_are_sent_and_offline_ones_are_not(output, monkeypatch):
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        send_beside(Choice(), output)
        assert said(output) == f"sent {output / 'stage_2'} {server.url}/somebody/peso/runs/{next(iter(server.runs))}\n"
    assert stands(output) == {"stage_1": "unsent", "stage_2": "sent before"}


def test_the_run_hears_of_nothing_that_goes_wrong(output, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "")
    send_beside(Choice(), output)
    assert "No API key" in said(output)
    assert capfd.readouterr() == ("", "")
    assert stands(output) == {"stage_1": "unsent", "stage_2": "unsent"}


def test_one_process_sends_for_all_runs(output):
    with hold(output / ".sending.lock"):
        send_beside(Choice(), output)
        assert said(output) == ""
    assert stands(output) == {"stage_1": "unsent", "stage_2": "unsent"}


@pytest.mark.parametrize(
    ("choice", "mode"), [(Choice(name="none"), ""), (Choice(mode="offline"), ""), (Choice(), "disabled")]
)
def test_who_did_not_ask_for_it_has_no_process_beside(output, monkeypatch, choice, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    send_beside(choice, output)
    assert not (output / "sending.log").exists()
    assert psutil.Process().children() == []
