"""How interactions fall into stages: the moments at which stages begin, and which stage an event belongs to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from peso_cli.data.event_files import Events, Parts, run_starts
from peso_cli.data.raw import Split
from peso_cli.data.timestamps import iso, moment_of
from peso_cli.errors import InputError

Moments = Callable[[], Iterator[NDArray[np.int64]]]
"""Gives the moments that are split, some at a time, as often as it is called."""

_BINS = 1 << 16
"""Bins of a histogram; three of them in a row find a millisecond among eight thousand years."""


def moments_of(split: Split, parts: Parts) -> Moments:
    """Return the moments whose shares or periods make the stages: of all events, or of each user's first."""

    def give() -> Iterator[NDArray[np.int64]]:
        for events in map(parts.load, range(parts.count)):
            moments = np.ascontiguousarray(events["moment"])
            yield moments if split.kind == "chronological" else moments[run_starts(events["user"])]

    return give


def stages_of(split: Split, cuts: Sequence[int], events: Events) -> NDArray[np.int64]:
    """Return (events,) the stage (from 1) of each event.

    Args:
        split: which moment tells: the event's own, or that of its user's first event.
        cuts: when stages 2, 3, … begin.
        events: user by user, each in time order.
    """
    moments = events["moment"]
    if split.kind == "user_disjoint":
        starts = run_starts(events["user"])
        moments = np.repeat(moments[starts], np.diff(np.append(starts, len(events))))
    return np.searchsorted(np.array(cuts, dtype=np.int64), moments, side="right") + 1


def check_split(split: Split) -> None:
    """Check, before any work, that the settings don't contradict themselves.

    Raises:
        InputError: shares don't sum to 1, or dates are missing, malformed or out of order.
    """
    if split.by == "dates":
        _dates(split.dates)
    if split.by == "shares" and not math.isclose(sum(split.shares), 1.0, abs_tol=1e-6):
        raise InputError(f"split.shares: they sum to {sum(split.shares):g}; make it 1")


def cut_points(split: Split, moments: Moments) -> list[int]:
    """Return the moments (milliseconds since 1970 UTC) at which stages 2, 3, … begin.

    Events of one moment are of one stage, so the cuts don't depend on the order in which such events come. A share ends
    before or after the moment at which it is reached, whichever is nearer to it.

    Args:
        split: the settings.
        moments: what is split; there is at least one moment.

    Raises:
        InputError: the settings contradict themselves.
    """
    check_split(split)
    if split.by == "dates":
        return _dates(split.dates)
    size, low, high = _extent(moments)
    if split.by == "periods":
        return [low + (high - low + 1) * number // split.periods for number in range(1, split.periods)]
    ranks = [min(round(size * share), size - 1) for share in accumulate(split.shares[:-1])]
    return [_nearer_end(*found) for found in zip(ranks, _ranked(moments, ranks, low, high), strict=True)]


def _dates(texts: Sequence[str]) -> list[int]:
    cuts = [moment_of("split.dates", text) for text in texts]
    if not cuts:
        raise InputError(
            "split.dates=[]: give the dates at which stages 2, 3, … begin, such as [2017-01-01,2018-01-01]"
        )
    for (earlier, cut), (later, following) in pairwise(zip(texts, cuts, strict=True)):
        if following <= cut:
            raise InputError(f"split.dates: {later} doesn't come after {earlier}; give them in order")
    return cuts


def _extent(moments: Moments) -> tuple[int, int, int]:
    """Return how many moments there are, the first and the last."""
    found = [(len(some), int(some.min()), int(some.max())) for some in moments() if len(some)]
    sizes, lows, highs = zip(*found, strict=True)
    return sum(sizes), min(lows), max(highs)


def _nearer_end(rank: int, found: tuple[int, int, int]) -> int:
    moment, below, equal = found
    return moment if rank - below <= below + equal - rank else moment + 1


def _ranked(moments: Moments, ranks: Sequence[int], low: int, high: int) -> list[tuple[int, int, int]]:
    """Find moments by their rank (from 0) among all, in ascending order.

    Each pass takes a histogram of the range in which a moment must lie and narrows it to one bin, until it is one
    millisecond wide: memory for some histograms instead of for all moments.

    Returns:
        For each rank the moment, how many moments come before it and how many are the same.
    """
    ranges = [(low, high + 1, 0)] * len(ranks)
    equal = [0] * len(ranks)
    while any(end - start > 1 for start, end, _ in ranges) or not all(equal):
        histograms = _histograms(moments, {(start, end) for start, end, _ in ranges})
        for place, (rank, (start, end, below)) in enumerate(zip(ranks, ranges, strict=True)):
            upto = np.cumsum(histograms[start, end])
            bin_ = int(np.searchsorted(upto, rank - below, side="right"))
            before = int(upto[bin_ - 1]) if bin_ else 0
            equal[place] = int(upto[bin_]) - before
            width = _width(start, end)
            ranges[place] = (start + bin_ * width, min(start + (bin_ + 1) * width, end), below + before)
    return [(start, below, count) for (start, _, below), count in zip(ranges, equal, strict=True)]


def _width(start: int, end: int) -> int:
    return -(-(end - start) // _BINS)


def _histograms(moments: Moments, ranges: set[tuple[int, int]]) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Count, for each range (start, end), the moments in each of its bins."""
    counts = {key: np.zeros(_BINS, dtype=np.int64) for key in ranges}
    for some in moments():
        for (start, end), count in counts.items():
            inside = some[(some >= start) & (some < end)]
            count += np.bincount((inside - start) // _width(start, end), minlength=_BINS)
    return counts


def refuse_empty(cuts: Sequence[int], events: NDArray[np.int64], kept: NDArray[np.int64], min_events: int) -> None:
    """Raise InputError if a stage is empty.

    Args:
        cuts: when stages 2, 3, … begin.
        events: (stages,) how many events each stage has.
        kept: (stages,) the same without those of users who have fewer than `min_events` in the stage.
        min_events: of the split.
    """
    bounds = ["the first event", *map(iso, cuts), "the end"]
    for stage, (start, end) in enumerate(pairwise(bounds), start=1):
        if not events[stage - 1]:
            raise InputError(f"split: stage {stage}, from {start} to {end}, has no event; choose other or fewer stages")
        if not kept[stage - 1]:
            raise InputError(
                f"split.min_events={min_events}: no user has as many events in stage {stage}, from {start} to {end}; "
                "ask for fewer, or choose other or fewer stages"
            )
