"""From the words of a sweep to its points: every combination of the values that its keys are given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import Glob, Override, RangeSweep

from peso_cli.config.compose import SWEEP_GROUPS, compose_plain, config_folders, group_options, parse
from peso_cli.errors import InputError

_MOST = 100_000
"""Most points of a grid, all of which are worked out before the first begins."""


@dataclass(frozen=True)
class Grid:
    """What a sweep goes over.

    Attributes:
        points: overrides of one run each, one value for each key.
        swept: the keys that take several values.
    """

    points: tuple[tuple[str, ...], ...]
    swept: tuple[str, ...]


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides that say what runs are, and those that say how the sweep carries them out."""
    of_sweep = [word for word in words if word.partition("=")[0].partition(".")[0] in SWEEP_GROUPS]
    return [word for word in words if word not in of_sweep], of_sweep


def read_grid(words: Sequence[str], config_dir: Path | None = None) -> Grid:
    """Return all combinations of the values that Hydra's sweep syntax gives: `seed=1,2,3`, `range(1,4)`, `choice(a,b)`.

    A chosen experiment may bring a grid of its own (`hydra.sweeper.params`); words for the same key take its place.

    Raises:
        InputError: a word can't be read, or gives an interval, of which only a search can take values.
    """
    groups = group_options(config_folders(config_dir))
    given = {word.partition("=")[0]: word for word in words}
    experiments = parse(given["experiment"], groups, several=True) if "experiment" in given else None
    if experiments is not None and experiments.is_sweep_override():
        raise InputError(f"{given['experiment']}: a sweep takes one experiment")
    brought = _brought(given.get("experiment"), config_dir)
    overrides = [parse(word, groups, several=True) for word in ({**brought, **given}).values()]
    axes = [_values(override, groups) for override in overrides]
    if (count := math.prod(map(len, axes))) > _MOST:
        raise InputError(f"the words span {count:,} runs; give fewer values (at most {_MOST:,} runs), or search=random")
    points = tuple(tuple(point) for point in itertools.product(*axes))
    return Grid(points, tuple(o.key_or_group for o in overrides if o.is_sweep_override()))


def _brought(experiment: str | None, config_dir: Path | None) -> Mapping[str, str]:
    if experiment is None:
        return {}
    # Only the experiment counts here: what it needs besides, such as the path of the data, has no say in its grid.
    grid = compose_plain("config", ["dataset=synthetic", experiment], config_dir).grid
    return {key: f"{key}={values}" for key, values in grid.items()}


def _values(override: Override, groups: Mapping[str, Sequence[str]]) -> list[str]:
    text, value = str(override.input_line), override.value()
    if not override.is_sweep_override():
        return [text]
    if override.is_interval_sweep():
        raise InputError(f"{text}: an interval has no list of values; give some (KEY=1,2,5), or search it: search=tpe")
    key = override.key_or_group
    if isinstance(value, Glob):
        if not (names := value.filter(list(groups.get(key, ())))):
            raise InputError(f"{text}: fits no choice; there are {', '.join(groups.get(key, ('none',)))}")
        return [f"{key}={name}" for name in names]
    if isinstance(value, RangeSweep) and not _few(value):
        raise InputError(f"{text}: a range has a start, a stop, a step and at most {_MOST:,} values")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _few(sweep: RangeSweep) -> bool:
    """Whether a range ends, and soon enough."""
    start, stop, step = (float(value or 0) for value in (sweep.start, sweep.stop, sweep.step))
    return math.isfinite(start) and math.isfinite(stop) and 0 < abs(stop - start) <= _MOST * abs(step)
