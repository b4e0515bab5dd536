"""Choosing a fusion on validation users, and writing the choice down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter, ValidationError

from peso_cli.artifacts import WEIGHTS_FOLDER, Artifact
from peso_cli.errors import RunError
from peso_cli.evaluation.metrics import mean_figures, sid_figures, sid_ranks
from peso_cli.files import write_json
from peso_cli.hybrid.fusions import Calibration, Fusion, Pool, Rows, calibrate
from peso_cli.hybrid.settings import Hybrid, Kind

FILE = f"{WEIGHTS_FOLDER}/fusion.json"
"""Where in an artifact the choice lies."""

_KINDS: tuple[Kind, ...] = ("reciprocal_rank", "calibrated", "rescored")


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        fusion: the best one.
        by: the figure by which it is the best.
        users: how many validation users it was chosen on.
        best: the best fusion of each kind by its name, with its weight and its figures on them; `alone` has both parts.
    """

    fusion: Fusion
    by: str
    users: int
    best: dict[str, dict[str, float]]


def needs_exact(settings: Hybrid) -> bool:
    """Tell whether choosing looks at exact scores."""
    return settings.fusion in ("chosen", "rescored")


def choose(pool: Pool, targets: Rows, settings: Hybrid, top: int) -> Choice:
    """Choose the fusion whose lists of `top` have the highest NDCG of semantic IDs.

    Each part alone is among those tried, so that no choice is below them on these users. Of equal ones the first
    counts: the language model alone, the two-tower model alone, then the kinds of fusion with ascending weights.

    Args:
        pool: the candidates of n users.
        targets: (n,) rows of `catalog.sids` of their targets, -1 where it isn't there.
        settings: what is tried.
        top: the length of the lists.
    """
    by = f"ndcg@{top}"
    tried = [(fusion, _figures(fusion, pool, targets, top)) for fusion in _options(pool, targets, settings)]
    fusion, figures = max(tried, key=lambda pair: pair[1][by])
    best: dict[str, dict[str, float]] = {}
    for option, found in sorted(tried, key=lambda pair: -pair[1][by]):
        name = option.kind if option.kind != "alone" else "generative" if option.weight == 1 else "two_tower"
        best.setdefault(name, {"weight": option.weight, **found})
    return Choice(fusion, by, int(figures["users"]), best)


def _options(pool: Pool, targets: Rows, settings: Hybrid) -> Iterator[Fusion]:
    for weight in (1.0, 0.0):
        yield Fusion("alone", weight, settings.constant)
    for kind in _KINDS if settings.fusion == "chosen" else (settings.fusion,):
        fitted = _calibrations(pool, targets) if kind == "calibrated" else ()
        for step in range(settings.steps + 1):
            yield Fusion(kind, step / settings.steps, settings.constant, fitted)


def _calibrations(pool: Pool, targets: Rows) -> tuple[Calibration, ...]:
    hits = (pool.rows == targets[:, None]) & (pool.rows >= 0)
    return tuple(calibrate(scores, ranks, hits) for scores, ranks in zip(pool.scores, pool.ranks, strict=True))


def _figures(fusion: Fusion, pool: Pool, targets: Rows, top: int) -> dict[str, float]:
    ranks = sid_ranks(fusion.best(pool, top)[0], targets)
    return {name: float(value or 0) for name, value in mean_figures(sid_figures(ranks, top)).items()}


def write_choice(artifact: Artifact, choice: Choice) -> None:
    """Write a choice into an artifact, where the stage's mark guards it."""
    (artifact.folder / FILE).parent.mkdir(exist_ok=True)
    write_json(artifact.folder / FILE, asdict(choice))


def read_choice(artifact: Artifact) -> Choice:
    """Return the choice that a finished stage made.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return TypeAdapter(Choice).validate_python(artifact.document(FILE))
    except ValidationError:
        raise RunError(
            f"{artifact.folder / FILE}: holds no choice of a fusion; peso train --repair trains it anew"
        ) from None
