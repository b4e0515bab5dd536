"""Running the command line inside the tests' own process, on a world small enough to be learnt in a blink."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peso_cli.cli import main

WORLD = ("dataset.users=60", "dataset.items=80", "dataset.stages=3")
SMALL = (
    *WORLD,
    "backbone.hidden=32",
    "backbone.layers=1",
    "backbone.heads=2",
    "backbone.key_value_heads=2",
    "backbone.feed_forward=64",
    "trainer.epochs=2",
    "trainer.later_epochs=2",
    "trainer.learning_rate=0.002",
    "trainer.later_stage_scale=1.0",
    "trainer.batch_tokens=128",
    "trainer.accumulation=2",
    "tracker=none",
    "device=cpu",
)


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code, and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


def peso(*arguments: object) -> Answer:
    """Run `peso ARGUMENTS` as the installed command does."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["peso", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        return Answer(int(ended.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = before
    raise AssertionError("main returned")


def refused(answer: Answer, *parts: str, code: int = 2) -> str:
    """Check that a command ended with one line of complaint that holds all the parts, and return that line."""
    (line,) = answer.err.splitlines()[-1:]
    assert answer.code == code, answer
    assert answer.out == ""
    assert line.startswith("peso: ")
    assert "Traceback" not in answer.err
    for part in parts:
        assert part in line
    return line


@dataclass(frozen=True)
class Trained:
    """An output folder with trained stages of the small world."""

    output: Path

    def arguments(self, *more: str) -> tuple[str, ...]:
        """The overrides that lead to what is trained here."""
        return (*SMALL, f"output={self.output}", *more)

    def folder(self, method: str, stage: int) -> Path:
        """The folder of one stage."""
        (found,) = self.output.glob(f"synthetic/tiny/{method}/*/seed_1/stage_{stage}")
        return found


def files_of(folder: Path) -> dict[str, bytes]:
    """All files under a folder, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def learnt(folder: Path) -> dict[str, Any]:
    """What equal runs must leave in equal form: weights, predictions, log as bytes, metrics without time and memory."""
    names = ("adapter/", "model/", "state.safetensors", "predictions.parquet", "log.jsonl")
    found: dict[str, Any] = {name: data for name, data in files_of(folder).items() if name.startswith(names)}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics.pop("seconds")) == {"train", "evaluate"}
    metrics.pop("peak_bytes")
    return {**found, "metrics": json.dumps(metrics)}


def left(output: Path) -> dict[str, Any]:
    """All that equal runs in folders of the same name must leave: every file to the byte, but for times and memory.

    Somebody may commit between two of them, so the commit is left out. The mark has checksums of the metrics and the
    lineage with all this; of it, those of the other files count. Of a process that was killed a lock's file may lie
    there; it holds nothing.
    """
    found: dict[str, Any] = {name: data for name, data in files_of(output).items() if not name.endswith(".lock")}
    for name, data in found.items():
        if name.endswith("/metrics.json"):
            metrics = json.loads(data)
            assert {"seconds", "peak_bytes"} <= metrics.keys()
            found[name] = json.dumps({**metrics, "seconds": None, "peak_bytes": None})
        if name.endswith("/lineage.json"):
            found[name] = {**json.loads(data), "git_commit": None}
        if name.endswith("/DONE"):
            found[name] = {**json.loads(data)["files"], "lineage.json": None}
    return found
