from types import SimpleNamespace

import pytest

from peso_cli.tracking.tracker import open_tracker


@pytest.mark.parametrize(("name", "mode"), [("none", "online"), ("wandb", "disabled")])
def test_no_tracker_takes_everything_and_writes_nothing(tmp_path, monkeypatch, capfd, name, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    config = SimpleNamespace(name=name, project="peso", mode="online", entity=None, samples=2)
    tracker = open_tracker(config, tmp_path, group="g", name="n", settings={"seed": 1})
    tracker.curve(1, {"loss": 1.0})
    tracker.result(1, {"recall@10": 1.0})
    tracker.samples(["user"], [["u1"]])
    tracker.close()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
