"""What a search has found: its trials, and the ones chosen on validation users with their figures of test users."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from peso_cli.stages import Display
from peso_cli.sweeps.searches.optuna import Optuna
from peso_cli.sweeps.searches.space import Values
from peso_cli.sweeps.searches.trials import Arena

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


def outcome(arena: Arena, search: Optuna, study: Study | None, display: Display) -> dict[str, Any]:
    """Return what a dataset's part of a search has found, in plain form.

    Args:
        arena: the dataset's part.
        search: how values are found.
        study: the trials that have ended; None: nothing has begun.
        display: where to say what is being scored.
    """
    trials = study.get_trials() if study else []
    return {
        "dataset": arena.name,
        "stages": list(arena.stages),
        "trials": [_row(trial, search) for trial in trials],
        "chosen": [_chosen(arena, trial, search, display) for trial in best(study)] if study else [],
    }


def best(study: Study) -> list[FrozenTrial]:
    """Return the trial that is best on validation users, the first of equals; of several objectives, all trade-offs."""
    from optuna.trial import TrialState

    if not study.get_trials(states=(TrialState.COMPLETE,)):
        return []
    found = study.best_trials
    return found if len(study.directions) > 1 else found[:1]


def _row(trial: FrozenTrial, search: Optuna) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": dict(trial.params),
        "validation": dict(zip(search.figures, trial.values or [], strict=False)),
        "after": list(trial.intermediate_values.values()),
    }


def _chosen(arena: Arena, trial: FrozenTrial, search: Optuna, display: Display) -> dict[str, Any]:
    return {
        **_row(trial, search),
        "test": test_figures(arena, trial.params, display),
        "command": command(arena, trial.params),
    }


def test_figures(arena: Arena, values: Values, display: Display) -> dict[str, float]:
    """Return the means over stages and seeds of a trial's figures of test users, which no choice rests on."""
    from peso_cli.evaluation.figures import evaluate, flat_figures

    found: list[Mapping[str, float]] = []
    for run in arena.runs(values):
        for stage in arena.stages:
            evaluated = evaluate(run, stage, (stage,), "test", display)["evaluated"]
            found.append(flat_figures(evaluated[str(stage)]["test"]))
    names = [name for name in found[0] if name.startswith(("recall@", "ndcg@", "item."))]
    return {name: fmean(figures[name] for figures in found) for name in names}


def command(arena: Arena, values: Values) -> str:
    """Return the command that trains a trial's values where they aren't, and shows their figures of test users."""
    seeds: Sequence[str] = arena.space.seeds
    verb = "sweep" if len(seeds) > 1 else "train"
    words = [*arena.words(values), *([f"seed={','.join(seeds)}"] if seeds else [])]
    folder = ["--config-dir", str(arena.config_dir)] if arena.config_dir else []
    return shlex.join(["peso", verb, *words, *folder])
