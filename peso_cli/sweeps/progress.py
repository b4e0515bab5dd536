"""What a sweep shows while its runs go on, here or elsewhere: how many have ended, and what the others last said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from peso_cli.sweeps.ledger import Ledger, State
from peso_cli.sweeps.plan import Job

_SECONDS = 1.0
_TAIL_BYTES = 400


@contextmanager
def watching(
    ledger: Ledger, say: Callable[[str], object], show: Callable[[Mapping[str, State], str], object]
) -> Iterator[None]:
    """Keep looking at a ledger while the block runs.

    Args:
        ledger: of the sweep.
        say: called with a line for each run that ends.
        show: called every second with the states and the last words of the runs that go on.
    """
    ended, stop = _ended(ledger.states()), threading.Event()

    def look() -> None:
        states = ledger.states()
        for job in ledger.jobs:
            if job.name in _ended(states) and job.name not in ended:
                ended.add(job.name)
                say(_line(ledger, job, states))
        show(states, "; ".join(_last_words(ledger, job) for job in ledger.jobs if states[job.name] == "running"))

    def keep_looking() -> None:
        while not stop.wait(_SECONDS):
            look()

    watcher = threading.Thread(target=keep_looking, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
        look()


def _ended(states: Mapping[str, State]) -> set[str]:
    return {name for name, state in states.items() if state in ("done", "failed")}


def _line(ledger: Ledger, job: Job, states: Mapping[str, State]) -> str:
    count = f"{len(_ended(states))} of {len(states)}"
    if states[job.name] == "failed":
        return f"{count}: {job.label} failed: {ledger.error(job)} (see {ledger.log(job)})"
    return f"{count}: {job.label}"


def _last_words(ledger: Ledger, job: Job) -> str:
    path = ledger.log(job)
    if not path.is_file():
        return job.label
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = log.read().decode(errors="replace").splitlines()
    return f"{job.label}: {lines[-1]}" if lines else job.label
