"""`peso bench decode`: this package's search, plain `generate`, and a bare reading of the same prompts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from peso_cli.bench import plain
from peso_cli.bench.cases import Case, trained_for_a_while
from peso_cli.bench.measure import best_of, figures, matrix_rate, peak_memory, side_by_side
from peso_cli.decoding.scoring import Normalise
from peso_cli.evaluation.ranking import Ranker, Ranking
from peso_cli.stages import Display

Document = dict[str, Any]
Histories = Sequence[NDArray[np.int32]]

_NEAR = 1e-5
"""Scores nearer than this may stand in either order: sums in another order round otherwise."""

_BATCHES = (2, 4, 8, 16, 32, 64)

_SHARE_ONE_BY_ONE = 8
"""One in so many of the timed users is timed where users come one at a time."""

_SCORED = 32
"""How many users' scores are compared; `generate` returns them only at the price of keeping all logits."""

_NORMALISE: tuple[Normalise, ...] = ("vocabulary", "vocabulary_bfloat16", "level")


def bench_decoding(case: Case, users: int, timed: int, repeats: int, steps: int, display: Display) -> Document:
    """Measure decoding.

    Args:
        case: what is measured.
        users: test users whose lists are compared, and
        timed: how many of them are timed in the plain way, which takes as long for each however many there are.
        repeats: how often each way is timed.
        steps: training steps before.
        display: shows progress.
    """
    model = trained_for_a_while(case, steps, display.bar("training for a while"))
    everybody = case.sample("test", users).histories()
    some = everybody[: min(timed, len(everybody))]
    search, prompt = _plain_search(case, model), case.backbone.prompt
    batch = best_of(_BATCHES, lambda size: lambda: search.run(some[: max(size, 8)], size))
    reading = best_of(_BATCHES, lambda size: lambda: plain.bare_prefill(model, prompt, some, size))
    rankers = {normalise: _ranker(case, model, normalise) for normalise in _NORMALISE}
    few = some[: max(1, len(some) // _SHARE_ONE_BY_ONE)]
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        f"plain generate, batch {batch}": (lambda: search.run(some, batch), len(some)),
        "plain generate, batch 1": (lambda: search.run(few, 1), len(few)),
        **{_name(n): (lambda rank=rank: rank(everybody), len(everybody)) for n, rank in rankers.items()},  # type: ignore[misc]
        f"bare reading, batch {reading}": (
            lambda: plain.bare_prefill(model, prompt, everybody, reading),
            len(everybody),
        ),
    }
    times = side_by_side({name: work for name, (work, _) in ways.items()}, repeats, display.bar("timing"))
    display.say("comparing lists")
    expected = search.run(everybody, batch)[0]
    scores = search.run(everybody[:_SCORED], batch, scores=True)[1]
    compared = [normalise for normalise in _NORMALISE if normalise != "level"]
    return {
        "bench": "decode",
        "backbone": case.config.backbone.name,
        "prompt": case.config.prompt.name,
        "vocabulary": case.backbone.vocabulary.size,
        "beams": case.config.decoding.beams,
        "users": len(everybody),
        "timed": len(some),
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "ways": {name: figures(times[name], work, "user", count) for name, (work, count) in ways.items()},
        "matrix_rate": matrix_rate(),
        "memory_at_batch": _memory_at(search, rankers["vocabulary"], some, batch),
        "equal": {_name(n): _compare(case, expected, scores, rankers[n](everybody)) for n in compared},
    }


def _name(normalise: Normalise) -> str:
    return "peso" if normalise == "vocabulary" else f"peso, normalise={normalise}"


def _plain_search(case: Case, model: PreTrainedModel) -> plain.PlainSearch:
    prompt = case.backbone.prompt
    beams = case.config.decoding.beams
    return plain.PlainSearch(model, case.backbone.vocabulary, prompt, beams, plain.allowed_tokens(prompt))


def _ranker(case: Case, model: PreTrainedModel, normalise: Normalise) -> Callable[[Histories], Ranking]:
    decoding = replace(case.config.decoding, normalise=normalise)
    ranker = Ranker(model, case.backbone.vocabulary, case.backbone.prompt, case.dataset.catalog, decoding)
    return lambda histories: ranker.rank(histories, decoding.beams)


def _memory_at(
    search: plain.PlainSearch, ours: Callable[[Histories], Ranking], histories: Histories, batch: int
) -> dict[str, int | None]:
    """Return the peak memory of both ways with as many users at once as the plain way likes."""
    longest = sorted(histories, key=len)[-batch:]
    return {
        "batch": batch,
        "plain": peak_memory(lambda: search.run(longest, batch)),
        "peso": peak_memory(lambda: ours(longest)),
    }


def _compare(case: Case, expected: NDArray[np.int64], scores: NDArray[np.float32], found: Ranking) -> Document:
    """Compare the lists of all users, and the scores of some."""
    tokens = (case.dataset.catalog.sids + case.backbone.vocabulary.first_code)[found.rows]
    kinds = [_kind(e, t, s) for e, t, s in zip(expected.tolist(), tokens.tolist(), found.scores.tolist(), strict=True)]
    difference = np.abs(np.sort(scores, axis=1) - np.sort(found.scores[: len(scores)], axis=1)).max()
    return {
        "compared": len(kinds),
        **{kind: kinds.count(kind) for kind in ("identical", "near ties swapped", "different")},
        "largest_score_difference": float(difference),
    }


def _kind(expected: list[list[int]], found: list[list[int]], scores: list[float]) -> str:
    if expected == found:
        return "identical"
    score = {tuple(sid): value for sid, value in zip(found, scores, strict=True)}
    in_their_order = [score.get(tuple(sid), float("nan")) for sid in expected]
    near = all(later <= earlier + _NEAR for earlier, later in itertools.pairwise(in_their_order))
    return "near ties swapped" if near and set(map(tuple, expected)) == set(score) else "different"
