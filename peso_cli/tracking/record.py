"""The one thing that a training loop tells its measurements to: the run folder's log, and behind it the tracker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from peso_cli.tracking.run_log import RunLog, read_log
from peso_cli.tracking.tracker import Tracker, TrackerChoice, open_tracker


class Record:
    """A log that every number is written to as it comes, and a tracker that is told all of it when the stage ends.

    Nobody sees a stage in the tracker before it has ended, so nothing of the tracker runs beside training. As a context
    manager it closes both; an exception marks the run as failed.
    """

    def __init__(self, path: Path, log: RunLog, open_tracker: Callable[[], Tracker]) -> None:
        """Take the log that is open at `path`, and what opens the tracker."""
        self._path, self._log, self._open_tracker = path, log, open_tracker
        self._samples: list[tuple[Sequence[str], Sequence[Sequence[object]]]] = []

    @property
    def position(self) -> int:
        """Length of the log in bytes: what a checkpoint stores and `open_record` takes as `keep_bytes`."""
        return self._log.position

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point of the training curves: `{"event": "train", "step": …, name: value, …}`."""
        self._log.write(dict(event="train", step=step, **_plain(values)))

    def result(self, stage: int, values: Mapping[str, float]) -> None:
        """Write the results of one evaluated stage: `{"event": "result", "stage": …, name: value, …}`."""
        self._log.write(dict(event="result", stage=stage, **_plain(values)))

    def diverged(self, known: Mapping[str, float | str]) -> None:
        """Write what is known of numbers that aren't finite: `{"event": "diverged", "step": …, "what": …, …}`."""
        self._log.write(dict(event="diverged", **known))

    def samples(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Show sample recommendations in the tracker; the log holds numbers only."""
        self._samples.append((columns, rows))

    def close(self, failed: bool = False) -> None:
        """Close the log, and tell the tracker what it says."""
        self._log.close()
        tracker = self._open_tracker()
        for line in read_log(self._path):
            _tell(tracker, line)
        for columns, rows in self._samples:
            tracker.samples(columns, rows)
        tracker.close(failed)

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)


class NoRecord:
    """What the processes of a run beside the first one tell their measurements to, which are the same."""

    position = 0

    def curve(self, step: int, values: Mapping[str, float]) -> None:
        """Leave it to the first process."""

    def result(self, stage: int, values: Mapping[str, float]) -> None:
        """Leave it to the first process."""

    def diverged(self, known: Mapping[str, object]) -> None:
        """Leave it to the first process."""

    def samples(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Leave it to the first process."""


def open_record(
    config: TrackerChoice,
    folder: Path,
    *,
    group: str,
    name: str,
    settings: Mapping[str, object],
    keep_bytes: int | None = 0,
) -> Record:
    """Open `folder/log.jsonl`, whose whole a tracker is told when the stage artifact ends, resumed or not.

    Args:
        config: the `tracker` group.
        folder: the stage's run folder.
        group: what the stages of one method and seed have in common.
        name: the run's name within its group.
        settings: the resolved configuration.
        keep_bytes: the `position` stored in the checkpoint to resume from; 0 starts anew, None keeps all.

    Raises:
        RunError: the log does not reach `keep_bytes`.
    """
    path = folder / "log.jsonl"
    log = RunLog.open(path, keep_bytes)
    return Record(path, log, partial(open_tracker, config, folder, group=group, name=name, settings=settings))


def _tell(tracker: Tracker, line: dict[str, Any]) -> None:
    match line:
        case {"event": "train", "step": int(step), **values}:
            tracker.curve(step, values)
        case {"event": "result", "stage": int(stage), **values}:
            tracker.result(stage, values)


def _plain(values: Mapping[str, float]) -> dict[str, float]:
    """Return Python floats, whatever number types they came as, so that the log and the tracker show the same."""
    return {name: float(value) for name, value in values.items()}
