"""From the values of a trial to its runs, and from their artifacts to what the trial is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from peso_cli.artifacts import canonical
from peso_cli.config.compose import compose, compose_plain, leaves
from peso_cli.config.fingerprint import digest
from peso_cli.config.schema import Config
from peso_cli.data.blocks import Dataset
from peso_cli.data.open import open_dataset
from peso_cli.errors import InputError, RunError, nearest
from peso_cli.stages import Run, check_settings, wanted_stages
from peso_cli.sweeps.ledger import Ledger
from peso_cli.sweeps.plan import Job
from peso_cli.sweeps.searches.space import Space, Value, Values, word

Launch = Callable[[Sequence[Job]], Ledger]
"""Carries out runs and returns the ledger that says how they ended."""

_VALIDATION = ("evaluation=in_stage", "evaluation.on=null", "evaluation.split=valid")
_COSTS = ("seconds", "stored_bytes")
"""Objectives that are no figures: of training a stage, and of what it leaves."""


@dataclass(frozen=True)
class Arena:
    """The part of a search that is about one dataset.

    Attributes:
        space: what is searched.
        data: the overrides of the dataset.
        config_dir: a folder searched before the built-in one.
    """

    space: Space
    data: tuple[str, ...]
    config_dir: Path | None

    def words(self, values: Values) -> list[str]:
        """Return the overrides that a trial's values come to; keys that its choices have no setting for are left out.

        Raises:
            InputError: the values can't be composed.
        """
        choices = [word(key, value) for key, value in values.items() if "." not in key]
        known = _keys([*self.space.fixed, *self.data, *choices], self.config_dir)
        settings = [word(key, value) for key, value in values.items() if "." in key and key in known]
        return [*self.space.fixed, *self.data, *choices, *settings]

    def runs(self, values: Values) -> list[Run]:
        """Return a trial's runs, one for each seed.

        Raises:
            InputError: the values are no configuration, or its data isn't there.
        """
        seeds = [[f"seed={seed}"] for seed in self.space.seeds] or [[]]
        return [self._run([*self.words(values), *seed, *_VALIDATION]) for seed in seeds]

    def _run(self, words: Sequence[str]) -> Run:
        composed = compose(words, self.config_dir)
        check_settings(composed.config)
        return Run(composed, self._opened(composed.config.dataset))

    @cached_property
    def _opened(self) -> Callable[[Any], Dataset]:
        return cache(open_dataset)

    @cached_property
    def _corners(self) -> list[Run]:
        return self.runs(next(self.space.probes()))

    @property
    def corner(self) -> Run:
        """A run of the first point of the space."""
        return self._corners[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that a trial is averaged over."""
        return tuple(run.config.seed for run in self._corners)

    @property
    def name(self) -> str:
        """What tells the dataset from others."""
        return " ".join(self.data) or self.corner.dataset.name

    @cached_property
    def stages(self) -> tuple[int, ...]:
        """The stages that count: those asked for behind the first, which all trials may share; or else the first."""
        wanted = wanted_stages(self.corner.config.stage, self.corner.dataset)
        return tuple(stage for stage in wanted if stage > 1) or wanted

    @property
    def identity(self) -> list[Any]:
        """What shapes the results of the space's first point, of all seeds: settings, data, method, decoding."""
        shaped = [[run.fingerprint(stage) for stage in self.stages] for run in self._corners]
        return [shaped, self.corner.config.method.name, self.corner.composed.plain["decoding"]]

    def check(self, figures: Sequence[str]) -> None:
        """Check, before any work, the options and ends of all axes, and that there will be such figures.

        Raises:
            InputError: they aren't a configuration, none has a key that is searched, or there is no such figure.
        """
        probes = list(self.space.probes())
        for run in (run for values in probes for run in self.runs(values)):
            _check_figures(figures, run.config)
        said = {text.partition("=")[0] for values in probes for text in self.words(values)}
        for key in self.space.axes.keys() - said:
            compose([*self.space.fixed, *self.data, word(key, probes[0][key])], self.config_dir)


def _keys(words: Sequence[str], config_dir: Path | None) -> set[str]:
    """Return the dotted keys of a configuration, those of groups of settings included."""
    found = [key for key, _ in leaves(compose_plain("config", words, config_dir).plain)]
    return {key.rsplit(".", up)[0] for key in found for up in range(key.count(".") + 1)}


def _check_figures(figures: Sequence[str], config: Config) -> None:
    from peso_cli.evaluation.metrics import cutoffs

    plain = [f"{kind}@{k}" for kind in ("ndcg", "recall") for k in cutoffs(config.decoding.top_k)]
    known = [*plain, *(f"item.{name}" for name in plain), *_COSTS]
    for figure in figures:
        if figure not in known:
            raise InputError(
                f"search.objectives: there is no figure {figure}{nearest(figure, known)}; "
                f"there are {', '.join(known)}, with a minus in front the less, the better"
            )


@dataclass(frozen=True)
class Trials:
    """Carries out trials and says what they are worth.

    Attributes:
        arena: the dataset's part of the search.
        figures: what is wanted of them.
        skip_failed: whether a trial may fail.
        launch: carries out runs.
    """

    arena: Arena
    figures: Sequence[str]
    skip_failed: bool
    launch: Launch

    def __call__(self, trials: Mapping[int, Values], stages: Sequence[int]) -> dict[int, tuple[float, ...] | None]:
        """Train trials up to the last of some stages.

        Args:
            trials: their values, by number.
            stages: the stages over which figures are averaged.

        Returns:
            The figures, means over the stages and all seeds, by number; None for a trial that failed.

        Raises:
            RunError: one was cut off, or failed where none may.
        """
        runs = {number: self.arena.runs(values) for number, values in trials.items()}
        jobs = {number: [_job(number, trials[number], run, stages) for run in runs[number]] for number in runs}
        ledger = self.launch(list({job.name: job for found in jobs.values() for job in found}.values()))
        failed = {number for number, found in jobs.items() if not self._ended_well(number, ledger, found)}
        return {n: None if n in failed else self._worth(runs[n], stages) for n in runs}

    def _ended_well(self, number: int, ledger: Ledger, jobs: Sequence[Job]) -> bool:
        states = [ledger.state(job) for job in jobs]
        for job, state in zip(jobs, states, strict=True):
            if state == "failed" and not self.skip_failed:
                raise RunError(
                    f"trial {number} failed: {ledger.error(job)} (see {ledger.log(job)}); "
                    "the same command tries it again, search.skip_failed=true goes on without it"
                )
            if state in ("missing", "running"):
                raise RunError(f"trial {number} was cut off (see {ledger.log(job)}); the same command goes on with it")
        return all(state == "done" for state in states)

    def _worth(self, runs: Sequence[Run], stages: Sequence[int]) -> tuple[float, ...]:
        found = [validation(run, stage) for run in runs for stage in stages]
        return tuple(fmean(figures[name] for figures in found) for name in self.figures)


def _job(number: int, values: Values, run: Run, stages: Sequence[int]) -> Job:
    """Return the job that trains a run up to the last of some stages and scores them on validation users."""
    last = max(stages)
    fingerprints = {str(run.artifact(s).folder): run.fingerprint(s) for s in range(1, last + 1)}
    words = (*run.composed.overrides, f"stage=[{','.join(map(str, stages))}]")
    label = " ".join([f"trial {number} to stage {last}:", shown(values), f"seed={run.config.seed}"])
    return Job(digest([list(fingerprints.values()), canonical(words)])[:12], label, (words,), fingerprints)


def shown(values: Values) -> str:
    """Return values in few characters."""
    return " ".join(word(key, short(value)) for key, value in values.items())


def short(value: Value) -> str:
    """Return a value in few characters."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def validation(run: Run, stage: int) -> dict[str, float]:
    """Return what a finished stage's validation users say of it, and what it cost; never anything of test users.

    Raises:
        RunError: the stage's figures are damaged.
    """
    from peso_cli.evaluation.figures import flat_figures, metrics_path, protocol_of

    artifact = run.artifact(stage)
    metrics, path = artifact.metrics(), metrics_path(artifact, protocol_of(run.config))
    try:
        summary = artifact.document(path.relative_to(artifact.folder))["evaluated"][str(stage)]["valid"]
        costs = {"seconds": float(metrics["seconds"]["train"]), "stored_bytes": float(metrics["stored_bytes"])}
        found = {**flat_figures(summary), **costs}
        if not all(map(math.isfinite, found.values())):
            raise ValueError("holds what is no figure")
        return found
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{path}: lacks figures of validation users; move it away to have them taken again") from None
