"""From the words of a search to what it searches: the settings that are fixed, the seeds, and the axes of the space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from peso_cli.config.compose import compose_plain, config_folders, group_options, parse
from peso_cli.errors import InputError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float
Values = Mapping[str, Value]
"""What a trial takes, by key; choices as Hydra writes them."""

_ONE = ("stage", "output", "experiment", "tracker", "device")
"""Keys that take one value in a search."""

_OWN = {
    "variant": "every trial needs a folder of its own",
    "evaluation": "a search scores each stage on its own validation users",
}
"""Keys that a search doesn't take, with the reason."""


@dataclass(frozen=True)
class Choice:
    """One of several values, as Hydra writes them."""

    options: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """The values that are checked before any work."""
        return self.options

    def distribution(self) -> BaseDistribution:
        """Return the axis as Optuna has it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.options)


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, both included; an int where these are ints.

    Attributes:
        low, high: the ends.
        step: between neighbours; None: any float.
        log: whether orders of magnitude are equally likely, not values.
    """

    low: int | float
    high: int | float
    step: int | float | None
    log: bool

    @property
    def ends(self) -> tuple[int | float, ...]:
        """The values that are checked before any work."""
        return self.low, self.high

    def distribution(self) -> BaseDistribution:
        """Return the axis as Optuna has it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int):
            return IntDistribution(self.low, int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Space:
    """What a search goes through.

    Attributes:
        fixed: overrides with one value.
        datasets: the overrides of each dataset that is searched for.
        seeds: the seeds over which a trial is averaged; none: the configuration's.
        axes: the keys that are searched, in the order of their names.
    """

    fixed: tuple[str, ...]
    datasets: tuple[tuple[str, ...], ...]
    seeds: tuple[str, ...]
    axes: Mapping[str, Choice | Number]

    @property
    def identity(self) -> dict[str, Any]:
        """The axes in plain form."""
        return {key: asdict(axis) for key, axis in self.axes.items()}

    def probes(self) -> Iterator[dict[str, Value]]:
        """Yield points that together take every option and both ends of every axis."""
        corner: dict[str, Value] = {key: axis.ends[0] for key, axis in self.axes.items()}
        yield corner
        for key, axis in self.axes.items():
            yield from ({**corner, key: value} for value in axis.ends[1:])


def word(key: str, value: Value) -> str:
    """Return the override that gives a key a value."""
    return f"{key}={value if isinstance(value, str) else repr(value)}"


def read_space(words: Sequence[str], config_dir: Path | None = None) -> Space:
    """Read Hydra's sweep syntax as a space: `interval(0,1)`, `tag(log,interval(1,1e6))`, `range(1,9,2)`, `a,b`.

    Several seeds are averaged over; several values of `dataset` and `dataset.*` are searched for apart.

    Raises:
        InputError: a word can't be read or gives values to what isn't searched, or there is nothing to search.
    """
    groups = group_options(config_folders(config_dir))
    overrides = {o.key_or_group: o for o in (parse(text, groups, several=True) for text in words)}
    for key, override in overrides.items():
        _check(key, override)
    _check_experiment(overrides.get("experiment"), config_dir)
    swept = {key: override for key, override in sorted(overrides.items()) if override.is_sweep_override()}
    data = [key for key in swept if key.partition(".")[0] == "dataset"]
    axes = {key: _axis(override) for key, override in swept.items() if key not in (*data, "seed")}
    if not axes:
        raise InputError("there is nothing to search: give a setting values, such as KEY=interval(0,1) or KEY=1,2,5")
    return Space(
        fixed=tuple(str(o.input_line) for key, o in overrides.items() if key not in swept),
        datasets=tuple(itertools.product(*([word(key, v) for v in _options(swept[key])] for key in data))),
        seeds=_options(swept["seed"]) if "seed" in swept else (),
        axes=axes,
    )


def _check(key: str, override: Override) -> None:
    text, group = str(override.input_line), key.partition(".")[0]
    if group in _OWN:
        raise InputError(f"{text}: {_OWN[group]}; leave {key} out")
    if override.is_sweep_override() and group in _ONE:
        raise InputError(f"{text}: a search takes one {key}")


def _check_experiment(experiment: Override | None, config_dir: Path | None) -> None:
    if experiment is None:
        return
    # Only the experiment counts here: what it needs besides, such as the path of the data, has no say in its grid.
    text = str(experiment.input_line)
    if compose_plain("config", ["dataset=synthetic", text], config_dir).grid:
        raise InputError(f"{text}: brings a grid of its own; a search takes its values from the command line")


def _axis(override: Override) -> Choice | Number:
    text, value = str(override.input_line), override.value()
    tags: set[str] = getattr(value, "tags", set())
    log = "log" in tags
    if tags - {"log"} or (log and override.is_choice_sweep()):
        raise InputError(f"{text}: the tag {', '.join(sorted(tags))} means nothing here; log may go with an interval")
    match value:
        case IntervalSweep():
            return _interval(text, value, log)
        case RangeSweep():
            return _range(text, value, log)
    return Choice(_options(override))


def _interval(text: str, interval: IntervalSweep, log: bool) -> Number:
    low, high = interval.start, interval.end
    assert low is not None
    assert high is not None
    if not (low < high and math.isfinite(high - low)):
        raise InputError(f"{text}: an interval goes from a number to a larger one")
    if log and low <= 0:
        raise InputError(f"{text}: a logarithmic interval must begin above 0")
    return Number(low, high, None, log)


def _range(text: str, given: RangeSweep, log: bool) -> Number:
    values = sorted(given.range())
    if not values:
        raise InputError(f"{text}: the range is empty")
    if log and (given.step != 1 or not isinstance(values[0], int) or values[0] < 1):
        raise InputError(f"{text}: a logarithmic range takes ints from 1 on without a step; or give an interval")
    return Number(values[0], values[-1], abs(given.step), log)


def _options(override: Override) -> tuple[str, ...]:
    """Return the values listed, in an order that doesn't depend on how they were written."""
    try:
        found = tuple(sorted(set(override.sweep_string_iterator())))
    except HydraException:
        raise InputError(f"{override.input_line}: list the values: {override.key_or_group}=A,B") from None
    if not found:
        raise InputError(f"{override.input_line}: there are no values")
    return found
