from types import SimpleNamespace

import numpy as np
import pytest
from wandb_files import read_run

from peso_cli.tracking.record import open_record
from peso_cli.tracking.run_log import read_log


def record(folder, name="none", keep_bytes=0):
    config = SimpleNamespace(name=name, project="peso", mode="offline", entity=None, samples=5)
    return open_record(config, folder, group="g", name="stage-1", settings={}, keep_bytes=keep_bytes)


def train(run, steps):
    for step in steps:
        run.curve(step, {"loss": np.float32(1 / step)})


def test_the_log_holds_what_the_tracker_was_sent(tmp_path):
    with record(tmp_path, "wandb") as run:
        train(run, (1, 3))
        run.result(2, {"recall@10": np.float64(0.5), "users": 7})
        run.samples(["user"], [["u1"]])
    lines = read_log(tmp_path / "log.jsonl")
    assert lines == [
        {"event": "train", "step": 1, "loss": 1.0},
        {"event": "train", "step": 3, "loss": float(np.float32(1 / 3))},
        {"event": "result", "stage": 2, "recall@10": 0.5, "users": 7.0},
    ]
    sent = read_run(tmp_path)
    without_event = [{key: value for key, value in line.items() if key != "event"} for line in lines]
    assert sent.points("step") + sent.points("stage") == without_event
    assert sent.exit_code == 0
    assert len(sent.points("samples")) == 1


def test_a_resumed_stage_ends_as_one_never_stopped(tmp_path):
    with record(tmp_path / "straight", "wandb") as run:
        train(run, (1, 2, 3, 4))
        run.result(1, {"recall@10": 0.25})
    stopped = record(tmp_path / "resumed", "wandb")
    train(stopped, (1, 2))
    checkpoint = stopped.position
    train(stopped, (3,))
    stopped.close(failed=True)
    with record(tmp_path / "resumed", "wandb", keep_bytes=checkpoint) as run:
        train(run, (3, 4))
        run.result(1, {"recall@10": 0.25})

    def outcome(folder):
        sent = read_run(folder)
        return (folder / "log.jsonl").read_bytes(), sent.points("step"), sent.points("stage"), sent.axes, sent.exit_code

    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "straight")


def interrupted(folder):
    with record(folder, "wandb") as run:
        train(run, (1,))
        raise KeyboardInterrupt


def test_an_exception_marks_the_run_as_failed_and_passes(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path)
    assert read_run(tmp_path).exit_code == 1
    assert len(read_log(tmp_path / "log.jsonl")) == 1


def test_a_value_may_not_take_the_place_of_its_axis(tmp_path):
    with record(tmp_path) as run, pytest.raises(TypeError, match="step"):
        run.curve(1, {"step": 2.0})
    assert read_log(tmp_path / "log.jsonl") == []


def test_equal_runs_leave_equal_bytes(tmp_path):
    for name in ("a", "b"):
        with record(tmp_path / name) as run:
            train(run, range(1, 20))
    assert (tmp_path / "a" / "log.jsonl").read_bytes() == (tmp_path / "b" / "log.jsonl").read_bytes()
