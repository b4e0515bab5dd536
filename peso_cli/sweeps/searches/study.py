"""The search itself: batch by batch, each trial's values a function of its number and of the batches before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peso_cli.locks import hold
from peso_cli.sweeps.searches.optuna import Optuna
from peso_cli.sweeps.searches.space import Choice, Number, Values

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import JournalStorage
    from optuna.trial import Trial

Measure = Callable[[Mapping[int, Values], Sequence[int]], Mapping[int, tuple[float, ...] | None]]
"""Trains trials up to the last of some stages; returns each one's objectives over these, None if it failed."""


@contextmanager
def open_record(path: Path, waiting: Callable[[], object]) -> Iterator[JournalStorage]:
    """Hold the record of a search while the block runs: a file with a line for each trial that has ended.

    Args:
        path: the file; what a killed process left half-written at its end is dropped.
        waiting: called once if another process holds it, before waiting for that.
    """
    with hold(path.with_name(f".{path.name}.lock"), waiting):
        if path.exists():
            _mend(path)
        yield _read(path)


def _read(path: Path) -> JournalStorage:
    """Return the record of a search as Optuna's storage."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


def _mend(path: Path) -> None:
    """Drop half a line at the end, and the lock within the lock that a killed process can't have released."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    with path.open("rb+") as file:
        text = file.read()
        if not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)


def open_study(storage: JournalStorage, name: str, search: Optuna) -> Study:
    """Return the part of a record that is about one dataset."""
    from optuna import create_study

    return create_study(storage=storage, study_name=name, directions=search.directions, load_if_exists=True)


def find_study(path: Path, name: str) -> Study | None:
    """Return the part of a record that is about one dataset, only to be read; None where there is none."""
    from optuna import get_all_study_names, load_study

    storage = _read(path) if path.exists() else None
    if storage is None or name not in get_all_study_names(storage):
        return None
    return load_study(study_name=name, storage=storage)


def explore(
    record: Study, search: Optuna, axes: Mapping[str, Choice | Number], stages: Sequence[int], measure: Measure
) -> None:
    """Carry on a search until its record holds all trials.

    A batch is chosen, trained and judged in memory; its trials are recorded when all have ended, in the order of their
    numbers, a line each. Whoever comes after an interruption chooses the same batch again, because that rests on the
    trials of whole batches before it alone; what it has trained is found as artifacts.

    Args:
        record: the trials that have ended; what ends here is added.
        search: how values are found.
        axes: what is searched, by key.
        stages: those that a trial's objectives are means over.
        measure: trains trials.
    """
    memory = _whole_batches(record, search, len(stages))
    while (known := len(record.trials)) < search.trials:
        first = len(memory.trials)
        _carry_through(memory, search, _ask(memory, search, axes, first), stages, measure)
        for trial in memory.trials[known:]:
            record.add_trial(trial)


def _whole_batches(record: Study, search: Optuna, steps: int) -> Study:
    """Return a study in memory that knows the trials of all batches that were recorded as a whole."""
    from optuna import create_study

    pruner = search.make_pruner(steps)
    # A bracket of hyperband rests on the study's name, too.
    memory = create_study(study_name=record.study_name, directions=search.directions, pruner=pruner)
    recorded = record.trials
    memory.add_trials(recorded[: len(recorded) // search.batch * search.batch])
    return memory


def _ask(memory: Study, search: Optuna, axes: Mapping[str, Choice | Number], first: int) -> list[Trial]:
    distributions = {key: axis.distribution() for key, axis in axes.items()}
    batch = []
    for number in range(first, min(first + search.batch, search.trials)):
        memory.sampler = search.make_sampler(number)
        batch.append(memory.ask(distributions))
    return batch


def _carry_through(
    memory: Study, search: Optuna, batch: Sequence[Trial], stages: Sequence[int], measure: Measure
) -> None:
    """Train a batch: at once, or stage by stage where trials may be ended between stages."""
    rounds = [stages[: count + 1] for count in range(len(stages))] if search.prune else [stages]
    going = {trial.number: trial for trial in batch}
    for done in rounds:
        found = measure({number: trial.params for number, trial in going.items()}, done)
        for number, trial in list(going.items()):
            if _ends(memory, trial, found[number], len(done), last=len(done) == len(stages)):
                del going[number]


def _ends(memory: Study, trial: Trial, objectives: tuple[float, ...] | None, step: int, *, last: bool) -> bool:
    """Tell the study what a trial is worth by now; return whether it ends with that."""
    from optuna.trial import TrialState

    if objectives is None:
        memory.tell(trial, state=TrialState.FAIL)
        return True
    if len(objectives) == 1:
        trial.report(objectives[0], step)
    if last:
        memory.tell(trial, objectives)
    elif trial.should_prune():
        memory.tell(trial, state=TrialState.PRUNED)
    else:
        return False
    return True
