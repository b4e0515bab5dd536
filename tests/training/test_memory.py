import json

import numpy as np
import pytest
import torch

from peso_cli.training import memory
from peso_cli.training.memory import begin_peak, peak_bytes

CPU = torch.device("cpu")
LARGE = 200_000_000


@pytest.fixture
def told():
    """The rest needs a system that tells and forgets a process's peak."""
    if peak_bytes(CPU) is None:
        pytest.skip("this system doesn't let a process forget its peak memory")


def test_the_peak_is_that_since_it_was_begun(told):
    begin_peak(CPU)
    before = peak_bytes(CPU)
    held = np.ones(LARGE, dtype=np.uint8)
    after = peak_bytes(CPU)
    assert 0.9 * LARGE < after - before < 1.5 * LARGE
    del held
    assert peak_bytes(CPU) > after - LARGE / 2
    begin_peak(CPU)
    assert peak_bytes(CPU) < after - LARGE / 2


def test_what_the_system_does_not_tell_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_RESET", tmp_path / "clear_refs")
    begin_peak(CPU)
    assert peak_bytes(CPU) is None
    assert list(tmp_path.iterdir()) == []


def test_every_trained_stage_has_recorded_it(trained, told):
    for method, stage in (("base", 1), ("peso", 2), ("pretrain", 3)):
        metrics = json.loads((trained.folder(method, stage) / "metrics.json").read_text())
        assert 50_000_000 < metrics["peak_bytes"] < 100_000_000_000
