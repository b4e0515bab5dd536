"""Which recorded runs are sent, and which aren't."""

import pytest
from fake_wandb import absent, answer_with, serving
from recordings import record, stands

from peso_cli.artifacts import find_artifacts
from peso_cli.errors import InputError
from peso_cli.locks import hold
from peso_cli.tracking import sending
from peso_cli.tracking.recorded import recorded_run
from peso_cli.tracking.sending import send, standing


def sent_with(server, output, monkeypatch):
    """Send what is unsent to a server; return how each run stands then."""
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    return {found.run.folder.name: found for found in send(standing(find_artifacts(output)), 30.0)}


def test_what_is_sent_is_not_sent_again(output, monkeypatch):
    assert stands(output) == {"stage_1": "unsent", "stage_2": "unsent"}
    with serving() as server:
        found = sent_with(server, output, monkeypatch)
        assert {stage: run.state for stage, run in found.items()} == {"stage_1": "sent", "stage_2": "sent"}
        assert {run.url for run in found.values()} == {f"{server.url}/somebody/peso/runs/{id}" for id in server.runs}
        count = len(server.requests)
        again = sent_with(server, output, monkeypatch)
        assert len(server.requests) == count
    assert {stage: (run.state, run.url) for stage, run in again.items()} == {
        stage: ("sent before", run.url) for stage, run in found.items()
    }


def test_what_is_recorded_anew_is_sent_anew(output, monkeypatch):
    run = recorded_run(output / "stage_1")
    run.mark_sent(None)
    assert stands(output)["stage_1"] == "sent before"
    record(output / "stage_1")
    assert stands(output)["stage_1"] == "unsent"
    assert recorded_run(output / "stage_1").id == run.id


def test_an_unfinished_stage_waits(output, monkeypatch):
    for stage in ("stage_1", "stage_2"):
        (output / stage / "DONE").unlink()
    assert stands(output) == {"stage_1": "unfinished", "stage_2": "unfinished"}
    with serving() as server:
        assert sent_with(server, output, monkeypatch)["stage_1"].state == "unfinished"
    assert server.requests == []


def test_what_another_process_sends_is_left_to_it(output, monkeypatch):
    with hold(recorded_run(output / "stage_1").lock):
        assert stands(output) == {"stage_1": "being sent", "stage_2": "unsent"}
    assert stands(output)["stage_1"] == "unsent"


def test_when_none_of_a_batch_goes_through_the_rest_is_not_tried(output, monkeypatch):
    monkeypatch.setattr(sending, "_AT_ONCE", 1)
    with serving(answer_with(401)) as server:
        found = sent_with(server, output, monkeypatch)
    assert server.requests.count("UpsertBucket") == 1
    assert [run.state for run in found.values()] == ["unsent", "unsent"]
    assert all("401" in run.error for run in found.values())


def test_without_a_key_nothing_changes(output, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "")
    with absent() as server, pytest.raises(InputError, match="No API key"):
        sent_with(server, output, monkeypatch)
    assert stands(output) == {"stage_1": "unsent", "stage_2": "unsent"}
