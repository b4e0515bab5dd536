import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from wandb_files import read_run, read_table

from peso_cli.tracking.tracker import open_tracker

SETTINGS = {"method": {"name": "peso"}, "seed": 3, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path_factory):
    """A home and an environment in which W&B finds nothing of the user's."""
    for name in ("WANDB_MODE", "WANDB_ERROR_REPORTING", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    return folder


def opened(folder, name="stage-2", **changes):
    config = {"name": "wandb", "project": "peso", "mode": "offline", "entity": None, "samples": 2, **changes}
    return open_tracker(SimpleNamespace(**config), folder, group="games/peso/seed-3", name=name, settings=SETTINGS)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "peso"]


def test_an_offline_run_holds_all_that_it_was_told(tmp_path, capfd):
    tracker = opened(tmp_path)
    tracker.curve(10, {"loss": 2.5, "learning_rate": 1e-3})
    tracker.curve(20, {"loss": 1.25, "learning_rate": 5e-4})
    tracker.result(2, {"recall@10": 0.0289, "ndcg@10": 0.0157})
    tracker.result(3, {"recall@10": 0.0281})
    tracker.samples(["user", "rank", "items"], [["u1", 1, ["i1", "i2"]], ["u2", "missed", ["i3"]], ["u3", 2, []]])
    tracker.close()

    run = read_run(tmp_path)
    assert (run.project, run.group, run.name, run.exit_code) == ("peso", "games/peso/seed-3", "stage-2", 0)
    assert {key: value for key, value in run.config.items() if key != "_wandb"} == SETTINGS
    assert run.points("step") == [
        {"step": 10, "loss": 2.5, "learning_rate": 1e-3},
        {"step": 20, "loss": 1.25, "learning_rate": 5e-4},
    ]
    assert run.points("stage") == [
        {"stage": 2, "recall@10": 0.0289, "ndcg@10": 0.0157},
        {"stage": 3, "recall@10": 0.0281},
    ]
    assert run.axes == {"loss": "step", "learning_rate": "step", "recall@10": "stage", "ndcg@10": "stage"}
    (shown,) = run.points("samples")
    table = read_table(tmp_path, shown)
    assert table["columns"] == ["user", "rank", "items"]
    assert table["data"] == [["u1", 1, ["i1", "i2"]], ["u2", "missed", ["i3"]]]  # as many rows as configured
    assert capfd.readouterr() == ("", "")


def test_long_runs_are_read_back_whole(tmp_path):
    tracker = opened(tmp_path)
    for step in range(300):
        tracker.curve(step, {"loss": 1 / (step + 1)})
    tracker.close()
    assert read_run(tmp_path).points("step") == [{"step": step, "loss": 1 / (step + 1)} for step in range(300)]


def test_no_row_no_table(tmp_path):
    tracker = opened(tmp_path, samples=0)
    tracker.samples(["user"], [["u1"]])
    tracker.close()
    assert read_run(tmp_path).points("samples") == []


def test_stages_follow_each_other_in_one_process(tmp_path):
    for stage in (1, 2, 3):
        tracker = opened(tmp_path / f"stage-{stage}", name=f"stage-{stage}")
        tracker.result(stage, {"recall@10": stage / 10})
        tracker.close()
    runs = [read_run(tmp_path / f"stage-{stage}") for stage in (1, 2, 3)]
    assert [run.points("stage") for run in runs] == [[{"stage": n, "recall@10": n / 10}] for n in (1, 2, 3)]
    assert [run.name for run in runs] == ["stage-1", "stage-2", "stage-3"]
    assert len({run.group for run in runs}) == 1
    assert len({run.id for run in runs}) == 3


def test_a_second_attempt_takes_the_place_of_the_first(tmp_path):
    first = opened(tmp_path)
    first.curve(1, {"loss": 9.0})
    first.close(failed=True)
    broken = read_run(tmp_path)
    assert broken.exit_code == 1
    second = opened(tmp_path)
    second.curve(1, {"loss": 8.0})
    second.close()
    run = read_run(tmp_path)
    assert run.id == broken.id
    assert run.points("step") == [{"step": 1, "loss": 8.0}]


def test_nothing_about_the_machine_is_recorded(tmp_path, home):
    tracker = opened(tmp_path)
    tracker.samples(["user"], [["u1"]])
    tracker.close()
    assert read_run(tmp_path).host == ""
    (written,) = tmp_path.glob("wandb/*run-*/run-*.wandb")
    for private in (sys.executable, str(Path.cwd()), Path(__file__).name, str(home)):
        assert private.encode() not in written.read_bytes()
    assert {path.name for path in written.parent.glob("files/*")} == {"media"}
    assert not list(home.glob("**/artifacts"))


def test_the_configuration_wins_over_the_environment(tmp_path, monkeypatch):
    for name in ("PROJECT", "NAME", "RUN_GROUP", "RUN_ID", "ENTITY"):
        monkeypatch.setenv(f"WANDB_{name}", "theirs")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_CONSOLE", "wrap")
    opened(tmp_path).close()
    run = read_run(tmp_path)
    assert "theirs" not in (run.project, run.name, run.group, run.id)
    assert run.entity == "theirs"  # the configuration names none


def test_a_service_that_dies_costs_one_warning_and_its_stage_only(tmp_path, caplog):
    tracker = opened(tmp_path / "1")
    tracker.curve(1, {"loss": 1.0})
    (service,) = [child for child in psutil.Process().children() if "wandb-core" in child.name()]
    service.kill()
    service.wait(10)
    for step in range(2, 9):
        tracker.curve(step, {"loss": 1.0})
        tracker.samples(["user"], [["u1"]])
    tracker.result(1, {"recall@10": 0.5})
    tracker.close()
    assert len(warnings(caplog)) == 1
    assert "W&B failed" in warnings(caplog)[0]

    tracker = opened(tmp_path / "2")
    tracker.curve(1, {"loss": 2.0})
    tracker.close()
    assert read_run(tmp_path / "2").points("step") == [{"step": 1, "loss": 2.0}]
    assert len(warnings(caplog)) == 1


def test_what_can_not_start_warns_once_and_stops_nothing(tmp_path, caplog):
    tracker = opened(tmp_path, project="a/b")
    tracker.curve(1, {"loss": 1.0})
    tracker.close()
    (line,) = warnings(caplog)
    assert "W&B can't be started" in line
    assert "a/b" in line
    assert "\n" not in line
