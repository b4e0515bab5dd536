"""From points to runs: what each would train, which of them are the same run, and in which order they go best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from peso_cli.artifacts import canonical
from peso_cli.config.compose import Composed, compose, config_folders, group_options
from peso_cli.config.fingerprint import digest
from peso_cli.data.open import open_dataset
from peso_cli.errors import UnknownKeyError
from peso_cli.stages import Run, check_settings, wanted_stages
from peso_cli.sweeps.grid import Grid

_UNSAID = ("method", "evaluation", "evaluation.split", "evaluation.on")
"""Keys that a label doesn't repeat: the method comes first, figures aren't the run."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: a chain of stages, and the figures that are wanted of it.

    Attributes:
        name: the digest of what it trains and of the figures that are wanted.
        label: what tells it from the other runs, in words.
        ways: overrides that lead to it; those beyond the first ask for further figures of the same stages.
        fingerprints: of its stages, by the folder of their artifact, first stage first.
    """

    name: str
    label: str
    ways: tuple[tuple[str, ...], ...]
    fingerprints: Mapping[str, str]

    @property
    def base(self) -> str:
        """The folder of its first stage, which other runs may share."""
        return next(iter(self.fingerprints))


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, in the order in which they should begin.

    Attributes:
        jobs: the runs.
        left_out: keys with how many points they were left out of, because these have no such setting.
        points: how many points the grid has.
    """

    jobs: tuple[Job, ...]
    left_out: Mapping[str, int]
    points: int


@dataclass(frozen=True)
class _Point:
    """A point of the grid as the run that it is.

    Attributes:
        run: the run.
        words: the overrides that lead to it.
        last: the last of its stages.
    """

    run: Run
    words: tuple[str, ...]
    last: int

    @property
    def trains(self) -> str:
        """What tells it from points that train something else."""
        return canonical([str(self.run.artifact(self.last).folder), self.run.fingerprint(self.last)])

    @property
    def figures(self) -> str:
        """What tells it from points that ask for other figures of the same stages."""
        config, plain = self.run.config, self.run.composed.plain
        return canonical([plain["evaluation"], plain["decoding"], wanted_stages(config.stage, self.run.dataset)])


def make_plan(
    grid: Grid, config_dir: Path | None = None, tick: Callable[[int, int], object] = lambda done, total: None
) -> Plan:
    """Work out which runs the points of a grid are.

    A swept key that a point's method doesn't have (the strength of no regularizer) is left out of it; points that
    train the same become one run. Runs that share a first stage begin after others that don't, so that few wait.

    Args:
        grid: the points.
        config_dir: a folder searched before the built-in one.
        tick: called with (done, total) after each point.

    Raises:
        InputError: a point isn't a configuration, its data isn't there, or a swept key applies to no point.
    """
    opened = cache(open_dataset)
    left_out: Counter[str] = Counter()
    found: dict[str, list[_Point]] = {}
    composer = _Composer(grid.swept, config_dir)
    for done, words in enumerate(grid.points, start=1):
        composed, without = composer(words)
        left_out.update(without)
        check_settings(composed.config)
        run = Run(composed, opened(composed.config.dataset))
        point = _Point(run, composed.overrides, max(wanted_stages(composed.config.stage, run.dataset)))
        found.setdefault(point.trains, []).append(point)
        tick(done, len(grid.points))
    if any(count == len(grid.points) for count in left_out.values()):
        # A key that applies nowhere is a mistake; the composition says which.
        compose(grid.points[0], config_dir)
    jobs = [_job(points, grid.swept) for points in found.values()]
    return Plan(tuple(_in_order(jobs)), dict(left_out), len(grid.points))


@dataclass(frozen=True, eq=False)
class _Composer:
    """Composes points without those swept keys that they don't have.

    Attributes:
        swept: the keys that take several values.
        config_dir: a folder searched before the built-in one.
        lacking: the keys that points lack, by their choices of groups, which decide that.
    """

    swept: Sequence[str]
    config_dir: Path | None
    lacking: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def __call__(self, words: Sequence[str]) -> tuple[Composed, list[str]]:
        """Return a point's configuration, and the keys that it was composed without."""
        choices = tuple(word for word in words if word.partition("=")[0] in self._groups)
        lacking = self.lacking.setdefault(choices, [])
        while True:
            try:
                kept = [word for word in words if word.partition("=")[0] not in lacking]
                return compose(kept, self.config_dir), lacking
            except UnknownKeyError as error:
                if error.key not in self.swept or error.key in lacking:
                    raise
                lacking.append(error.key)

    @cached_property
    def _groups(self) -> Mapping[str, list[str]]:
        return group_options(config_folders(self.config_dir))


def _job(points: Sequence[_Point], swept: Sequence[str]) -> Job:
    run, last = points[0].run, points[0].last
    fingerprints = {str(run.artifact(stage).folder): run.fingerprint(stage) for stage in range(1, last + 1)}
    ways: dict[str, tuple[str, ...]] = {}
    for point in points:
        ways.setdefault(point.figures, point.words)
    name = digest([list(fingerprints.values()), sorted(ways)])[:12]
    return Job(name, _label(points[0], swept), tuple(ways.values()), fingerprints)


def _label(point: _Point, swept: Sequence[str]) -> str:
    said = [word for word in point.words if (key := word.partition("=")[0]) in swept and key not in _UNSAID]
    return " ".join([point.run.config.method.name, *said])


def _in_order(jobs: Sequence[Job]) -> list[Job]:
    """Put one run for each first stage in front, which trains what the others need; then those whose is ready first."""
    leaders: dict[str, Job] = {}
    for job in jobs:
        leaders.setdefault(job.base, job)
    followers = [job for job in jobs if job is not leaders[job.base]]
    return [*leaders.values(), *sorted(followers, key=lambda job: list(leaders).index(job.base))]
