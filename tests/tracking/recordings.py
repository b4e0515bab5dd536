"""Stages as they lie on disk after a run with tracker=wandb, without the training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import yaml

from peso_cli.artifacts import find_artifacts
from peso_cli.tracking.sending import standing
from peso_cli.tracking.tracker import open_tracker

POINTS = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]


def record(folder: Path, mode: str = "offline") -> Path:
    """Record a finished stage's run; return its folder."""
    config = SimpleNamespace(name="wandb", project="peso", mode=mode, entity=None, samples=2)
    tracker = open_tracker(config, folder, group="g", name=folder.name, settings={"seed": 3})
    for point in POINTS:
        tracker.curve(int(point["step"]), {"loss": point["loss"]})
    tracker.samples(["user"], [["u1"]])
    tracker.close()
    (folder / "lineage.json").write_text("{}")
    (folder / "config.yaml").write_text(yaml.safe_dump({"tracker": {"name": "wandb", "mode": mode}}))
    (folder / "DONE").write_text("{}")
    return folder


def stands(output: Path) -> dict[str, str]:
    """How the runs under a folder stand, by stage."""
    return {found.run.folder.name: found.state for found in standing(find_artifacts(output))}
