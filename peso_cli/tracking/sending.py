"""Sending what was recorded: which runs there are, and how each stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

from peso_cli.artifacts import Artifact
from peso_cli.locks import hold, is_held
from peso_cli.tracking.recorded import RecordedRun, recorded_run
from peso_cli.tracking.sync import Synced, sync

PATIENCE = 60.0
"""Seconds without another run finished after which a server is given up."""

_AT_ONCE = 50
"""Runs for one `wandb sync`."""

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
        RunError: W&B's command didn't begin.
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
