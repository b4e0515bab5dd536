import json
from pathlib import Path

import pytest
from commands.running import SMALL

from peso_cli.artifacts import Artifact
from peso_cli.errors import RunError
from peso_cli.sweeps.grid import read_grid
from peso_cli.sweeps.ledger import Ledger, open_ledger
from peso_cli.sweeps.plan import make_plan


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(read_grid([*SMALL, "method=single", "stage=2", "seed=1,2"]))
    return open_ledger(tmp_path / "outputs", plan.jobs, None)


def finish(job) -> None:
    for folder in job.fingerprints:
        artifact = Artifact(Path(folder))
        artifact.begin({}, {})
        (artifact.folder / "metrics.json").write_text("{}")
        artifact.finish()


def silent() -> None:
    pass


def test_a_run_is_missing_then_running_then_done(ledger):
    job = ledger.jobs[0]
    assert ledger.states() == {each.name: "missing" for each in ledger.jobs}
    with ledger.begin(job, silent):
        assert ledger.state(job) == "running"
        finish(job)
    assert ledger.state(job) == "done"
    assert ledger.document()["states"] == {"done": 1, "running": 0, "failed": 0, "missing": 1}


def test_a_failed_run_is_kept_with_its_reason_until_it_is_tried_again(ledger):
    job = ledger.jobs[0]

    def fail():
        with ledger.begin(job, silent):
            raise RunError("the loss is\nnot finite")

    with pytest.raises(RunError):
        fail()
    assert ledger.state(job) == "failed"
    row = ledger.document()["runs"][0]
    assert (row["error"], row["log"]) == ("the loss is not finite", str(ledger.log(job)))
    with ledger.begin(job, silent):
        finish(job)
    assert ledger.state(job) == "done"
    assert "error" not in ledger.document()["runs"][0]


def test_an_interrupted_run_is_missing(ledger):
    def interrupt():
        with ledger.begin(ledger.jobs[0], silent):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert ledger.state(ledger.jobs[0]) == "missing"


def test_a_run_whose_artifacts_were_taken_away_is_missing_again(ledger):
    job = ledger.jobs[0]
    with ledger.begin(job, silent):
        finish(job)
    Artifact(Path(list(job.fingerprints)[-1])).discard()
    assert ledger.state(job) == "missing"


def test_what_is_written_is_read_back(ledger):
    again = Ledger(ledger.folder)
    assert again.jobs == ledger.jobs
    assert again.directory == ledger.directory
    assert again.config_dir is None
    assert json.loads(ledger.write().read_text()) == json.loads(json.dumps(ledger.document()))


def test_what_is_damaged_is_said_to_be_so_or_counts_for_nothing(ledger):
    job = ledger.jobs[0]
    (ledger.folder / "runs").mkdir()
    (ledger.folder / "runs" / f"{job.name}.json").write_text("[]")
    assert ledger.state(job) == "missing"
    (ledger.folder / "plan.json").write_text("{")
    with pytest.raises(RunError, match=r"plan\.json.*again"):
        _ = Ledger(ledger.folder).jobs
