"""Small two-tower runs in the tests' own process."""

from __future__ import annotations

from pathlib import Path

from commands.running import WORLD

TOWERS = (
    *WORLD,
    "backbone.width=8",
    "backbone.batch=16",
    "trainer.epochs=2",
    "trainer.later_epochs=2",
    "tracker=none",
    "device=cpu",
)


def arguments(output: Path, backbone: str, method: str, *more: str) -> tuple[str, ...]:
    """The overrides of a small run."""
    sizes = ("backbone.feed_forward=16", "backbone.layers=1") if backbone == "sasrec" else ()
    return (f"backbone={backbone}", f"method=two_tower_{method}", f"output={output}", *TOWERS, *sizes, *more)


def folder(output: Path, backbone: str, method: str, stage: int) -> Path:
    """The folder of one stage."""
    name = "base" if stage == 1 else f"two_tower_{method}"
    (found,) = output.glob(f"synthetic/{backbone}/{name}/*/seed_1/stage_{stage}")
    return found
