"""The process that sends online runs beside those that train: `python -m peso_cli.tracking.beside OUTPUT`.

No run waits for it, and it has the processor only when nobody else wants it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from peso_cli.artifacts import Artifact, find_artifacts
from peso_cli.errors import InputError, RunError
from peso_cli.locks import hold, is_held
from peso_cli.tracking.account import wants_online
from peso_cli.tracking.recorded import RecordedRun
from peso_cli.tracking.sending import PATIENCE, Sending, send, standing
from peso_cli.tracking.tracker import TrackerChoice

_log = logging.getLogger("peso")

_LAST_PLACE = 19
"""What a process adds to its niceness to be the last to have the processor."""


def send_beside(tracker: TrackerChoice, output: Path) -> None:
    """Have a process of its own send the finished online runs under a folder; what it does is in `OUTPUT/sending.log`.

    Args:
        tracker: the `tracker` group; nothing happens unless it is W&B and online.
        output: the folder of all runs.
    """
    if not wants_online(tracker):
        return
    try:
        with (output / "sending.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", __name__, str(output.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        _log.warning("W&B: sending can't be started (%s); peso track sync sends the runs later", error)


def _keep_sending(output: Path) -> None:
    """Send finished online runs, each once, as long as there are more; leave all to a process that does so already."""
    with _alone(output / ".sending.lock") as alone:
        tried: set[RecordedRun] = set()
        while alone and (found := [s for s in standing(_online(output)) if s.state == "unsent" and s.run not in tried]):
            tried |= {sending.run for sending in found}
            _send_and_say(found)


@contextmanager
def _alone(lock: Path) -> Iterator[bool]:
    """Hold a lock unless another process does; yield whether it is held."""
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


def _send_and_say(found: Sequence[Sending]) -> None:
    try:
        for sending in send(found, PATIENCE):
            print(sending.state, sending.run.folder, sending.error or sending.url or "", flush=True)
    except (InputError, RunError) as error:
        print(error, flush=True)


if __name__ == "__main__":
    os.nice(_LAST_PLACE)
    _keep_sending(Path(sys.argv[1]))
