"""Running `wandb sync` on recorded runs, and finding out what became of each.

It ends with 0 and leaves its mark `.synced` even where the server took nothing, so what counts is its log: a run was
sent if the mark is there and no error was logged.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import psutil

from peso_cli.errors import InputError, RunError
from peso_cli.tracking.recorded import RecordedRun

_POLL_SECONDS = 0.1

_START_SECONDS = 300.0
"""For W&B's command to begin, which is the machine's business and not the server's."""

_LAST_WORDS_SECONDS = 2.0
"""For W&B's service to log what it was waiting for when its time was up."""

_RETRIES = 4

# Errors after which W&B goes on by other means: the mere status of an answer, and what a server is able to do.
_HARMLESS = ("api: ", "featurechecker: ")

_LONGEST = 300
"""Characters shown of an error, which may be a whole page of a proxy."""


@dataclass(frozen=True)
class Synced:
    """What became of a run.

    Attributes:
        url: where it can be seen, if it was sent and W&B said so.
        error: why it wasn't sent; None if it was.
    """

    url: str | None
    error: str | None


def sync(runs: Sequence[RecordedRun], patience: float, tick: Callable[[int], object]) -> list[Synced]:
    """Send runs with `wandb sync`.

    Args:
        runs: what to send; sending a run that W&B has replaces it.
        patience: seconds without another run finished after which the rest is given up.
        tick: called with how many runs are through.

    Raises:
        InputError: there is no API key, or a malformed one.
        RunError: W&B's command didn't begin.
    """
    for run in runs:
        run.synced.unlink(missing_ok=True)
    with TemporaryDirectory(prefix="peso-sync-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        _run(runs, scratch, patience, tick)
        output = (scratch / "output").read_text(encoding="utf-8", errors="replace")
        logs = _logs(scratch)
        errors = _logged_errors(logs)
    if not logs:
        _explain(output)
    return [_outcome(run, errors, output, patience) for run in runs]


def _run(runs: Sequence[RecordedRun], scratch: Path, patience: float, tick: Callable[[int], object]) -> None:
    (scratch / "wandb").mkdir()  # else W&B puts its logs elsewhere
    command = [sys.executable, "-m", "wandb", "sync", "--include-synced", *(str(run.file) for run in runs)]
    with (scratch / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env=_environment(scratch, patience),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(process, runs, scratch, patience, tick)
        finally:
            _end(process)


def _wait(
    process: subprocess.Popen[bytes],
    runs: Sequence[RecordedRun],
    scratch: Path,
    patience: float,
    tick: Callable[[int], object],
) -> None:
    done, begun, deadline = 0, False, time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        now = sum(run.synced.exists() for run in runs)
        if now > done or begun < bool(_logs(scratch)):
            done, begun, deadline = now, True, time.monotonic() + patience
            tick(done)
        time.sleep(_POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs; its service ends with it, having logged what it was waiting for."""
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=_LAST_WORDS_SECONDS)
        for child in alive:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def _environment(scratch: Path, patience: float) -> dict[str, str]:
    """Return the environment, with W&B kept from asking, writing to the home folder, and trying for too long."""
    found = dict(os.environ) | {
        "WANDB_SILENT": "false",
        "WANDB_QUIET": "false",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CACHE_DIR": str(scratch / "cache"),
        "WANDB_DATA_DIR": str(scratch / "data"),
    }
    found.pop("WANDB_DIR", None)
    found.pop("WANDB_SERVICE", None)
    for part in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER"):
        found[f"WANDB__{part}_RETRY_MAX"] = str(_RETRIES)
        found[f"WANDB__{part}_RETRY_WAIT_MIN_SECONDS"] = str(patience / 60)
        found[f"WANDB__{part}_RETRY_WAIT_MAX_SECONDS"] = str(patience / 8)
        found[f"WANDB__{part}_TIMEOUT_SECONDS"] = str(patience / 4)
    return found


def _explain(output: str) -> NoReturn:
    """Say why the command ended before it began to send; mostly it is for want of a key."""
    words = (output.strip().splitlines() or ["it said nothing"])[-1]
    if re.search(r"API[ _]key|API_KEY", words):
        words = words.removeprefix("Error: ").removesuffix("Use `wandb login` to log in.").rstrip(". ")
        raise InputError(f"W&B: {words}; give a key by `wandb login`, or in the environment as WANDB_API_KEY")
    raise RunError(f"W&B: wandb sync didn't begin: {_shown(words)}")


def _outcome(run: RecordedRun, errors: dict[str, str], output: str, patience: float) -> Synced:
    error = errors.get(str(run.file))
    if error is None and not run.synced.exists():
        complaint = re.search(r"^(?:Error: |wandb: ERROR )(.*)$", output, re.MULTILINE)
        server = re.search(r"credentials for (\S+) from", output)
        late = f"{server[1] if server else 'W&B'}: not through after {patience:g} seconds"
        error = _shown(complaint[1]) if complaint else late
    if error is not None:
        # W&B's own command would take the run for sent.
        run.synced.unlink(missing_ok=True)
        return Synced(None, error)
    url = re.search(rf" at (\S+/runs/{re.escape(run.id)})\b", output)
    return Synced(url[1] if url else None, None)


def _logs(scratch: Path) -> list[Path]:
    """Return the logs of W&B's service, which are there once it has begun to send."""
    return list(scratch.glob("wandb/logs/debug-sync*.log"))


def _logged_errors(logs: Iterable[Path]) -> dict[str, str]:
    """Return the first error of each run, by its file."""
    found: dict[str, str] = {}
    for log in logs:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # cut off
                continue
            if entry.get("level", "").startswith("ERROR") and not entry.get("msg", "").startswith(_HARMLESS):
                found.setdefault(entry.get("sync_path", ""), _words(entry))
    return found


def _words(entry: dict[str, Any]) -> str:
    """Return the last line of an error, which is what its retries were for."""
    return _shown(str(entry.get("error") or entry["msg"]).splitlines()[-1].removeprefix("while retrying: "))


def _shown(words: str) -> str:
    """Return words in plain English, without what is secret: queries of addresses, which may be signed, and the key."""
    key = os.environ.get("WANDB_API_KEY")
    words = (words.replace(key, "...") if key else words).replace("context deadline exceeded", "no answer in time")
    return re.sub(r"(https?://[^\s\"?]*)\?[^\s\"]*", r"\1", words)[:_LONGEST]
