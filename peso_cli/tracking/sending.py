"""Sending what was recorded: which runs there are, how each stands, and the process that sends beside an online run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from peso_cli.artifacts import Artifact, find_artifacts
from peso_cli.errors import InputError
from peso_cli.locks import hold, is_held
from peso_cli.tracking.recorded import RecordedRun, recorded_run
from peso_cli.tracking.sync import Synced, sync
from peso_cli.tracking.tracker import TrackerChoice

_log = logging.getLogger("peso")

PATIENCE = 60.0
"""Seconds without another run finished after which a server is given up."""

_AT_ONCE = 50
"""Runs for one `wandb sync`."""

_LAST_PLACE = 19
"""What a process adds to its niceness to have the processor only when nobody else wants it."""

State = Literal["sent", "sent before", "unsent", "being sent", "unfinished"]


@dataclass(frozen=True)
class Sending:
    """How a run stands.

    Attributes:
        run: the run.
        state: whether it was sent: now, before, not, by another process just now, or not yet as its stage isn't done.
        url: where it can be seen, if it was sent.
        error: why it is unsent, if that was tried.
    """

    run: RecordedRun
    state: State
    url: str | None = None
    error: str | None = None


def standing(artifacts: Sequence[Artifact]) -> list[Sending]:
    """Return how the runs that were recorded stand; artifacts without one are left out."""
    found = ((artifact, recorded_run(artifact.folder)) for artifact in artifacts)
    return [_stands(artifact, run) for artifact, run in found if run]


def _stands(artifact: Artifact, run: RecordedRun) -> Sending:
    if not artifact.finished:
        return Sending(run, "unfinished")
    if (sent := run.sent) is not None:
        return Sending(run, "sent before", sent.get("url"))
    return Sending(run, "being sent" if is_held(run.lock) else "unsent")


def send(
    found: Sequence[Sending], patience: float, tick: Callable[[int, int, str], object] = lambda done, total, note: None
) -> list[Sending]:
    """Send those that are unsent and return how all stand then.

    When none of a batch goes through, the rest isn't tried.

    Args:
        found: as `standing` returns them.
        patience: seconds without another run finished after which the server is given up.
        tick: called with (runs done, runs to send, note).

    Raises:
        InputError: there is no API key, or a malformed one.
    """
    after = {sending.run: sending for sending in found}
    unsent = [sending.run for sending in found if sending.state == "unsent"]
    for begin in range(0, len(unsent), _AT_ONCE):
        batch = unsent[begin : begin + _AT_ONCE]
        after |= _send(batch, patience, lambda done, begin=begin: tick(begin + done, len(unsent), ""))  # type: ignore[misc]
        if not any(after[run].state == "sent" for run in batch):
            rest = unsent[begin + _AT_ONCE :]
            after |= {run: replace(after[run], error=after[batch[0]].error) for run in rest}
            break
    return list(after.values())


def _send(runs: Sequence[RecordedRun], patience: float, tick: Callable[[int], object]) -> Mapping[RecordedRun, Sending]:
    with ExitStack() as locks:
        for run in runs:
            locks.enter_context(hold(run.lock))
        # Another process may have sent some while their locks were waited for.
        left = [run for run in runs if run.sent is None]
        known = {run: Sending(run, "sent before") for run in runs if run not in left}
        tried = dict(zip(left, sync(left, patience, tick), strict=True)) if left else {}
        return known | {run: _told(run, synced) for run, synced in tried.items()}


def _told(run: RecordedRun, synced: Synced) -> Sending:
    if synced.error is not None:
        return Sending(run, "unsent", error=synced.error)
    run.mark_sent(synced.url)
    return Sending(run, "sent", synced.url)


def send_beside(tracker: TrackerChoice, output: Path) -> None:
    """Have a process of its own send what online runs left under a folder; the run doesn't wait for it.

    It ends by itself when nothing is left to try, and has the processor only when nobody else wants it. What it did
    last stands in `OUTPUT/sending.log`.

    Args:
        tracker: the `tracker` group; nothing happens unless it is W&B and online.
        output: the folder of all runs.
    """
    if tracker.name != "wandb" or tracker.mode != "online" or os.environ.get("WANDB_MODE") == "disabled":
        return
    code = f"from {__name__} import keep_sending; keep_sending()"
    try:
        with (output / "sending.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-c", code, str(output.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        _log.warning("W&B: sending can't be started (%s); peso track sync sends the runs later", error)


def keep_sending() -> None:
    """Send finished online runs under the folder that the command line names, each once, as long as there are more."""
    output = Path(sys.argv[1])
    os.nice(_LAST_PLACE)
    with _alone(output / ".sending.lock") as alone:
        tried: set[RecordedRun] = set()
        while alone and (
            untried := [s for s in standing(_online(output)) if s.state == "unsent" and s.run not in tried]
        ):
            tried |= {sending.run for sending in untried}
            _send_and_say(untried)


def _send_and_say(found: Sequence[Sending]) -> None:
    try:
        for sending in send(found, PATIENCE):
            print(sending.state, sending.run.folder, sending.error or sending.url or "", flush=True)
    except InputError as error:
        print(error, flush=True)


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Hold a lock unless another process does, which then sends what there is; yield whether it is held."""
    if is_held(lock):
        yield False
        return
    with hold(lock):
        yield True


def _online(output: Path) -> list[Artifact]:
    return [artifact for artifact in find_artifacts(output) if artifact.finished and _wants_online(artifact)]


def _wants_online(artifact: Artifact) -> bool:
    try:
        config = yaml.safe_load((artifact.folder / "config.yaml").read_text(encoding="utf-8"))
        return bool(config["tracker"]["mode"] == "online")
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):  # damaged, which whoever uses it is told
        return False
