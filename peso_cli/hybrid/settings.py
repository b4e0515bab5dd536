"""What a configuration may say of a hybrid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, FolderName, Positive, PositiveFloat
from peso_cli.errors import InputError

if TYPE_CHECKING:
    from peso_cli.config.schema import Decoding

LEARNER = "hybrid"
"""What the adapter of a hybrid has as its `learner`."""

GENERATIVE, TWO_TOWER = "generative", "two_tower"
PARTS = (GENERATIVE, TWO_TOWER)
"""The parts of a hybrid, in the order in which everything about them is kept."""

Kind = Literal["alone", "reciprocal_rank", "calibrated", "rescored"]
"""The ways to fuse; `alone` is one of the parts by itself."""


@dataclass(frozen=True, config=STRICT)
class PartOfHybrid:
    """A part, composed as `peso train backbone=... method=... SETTINGS` would compose it.

    Attributes:
        backbone, method: choices of these groups.
        settings: further overrides, of the backbone, trainer, adapter, regularizer and memory.
    """

    backbone: FolderName
    method: FolderName
    settings: tuple[str, ...]


@dataclass(frozen=True, config=STRICT)
class Hybrid:
    """A language model and a two-tower model whose lists are fused.

    Attributes:
        source, name: mark the backbone as a hybrid, and name it in paths and tables.
        generative, two_tower: the parts.
        candidates: how many semantic IDs each part brings to the fusion.
        fusion: how their lists are fused; `chosen`: as is best on the stage's validation users.
        constant: what is added to ranks in reciprocal-rank fusion (Cormack et al., SIGIR 2009: 60).
        steps: the weights 0, 1/steps, ..., 1 of the language model are tried on validation.
    """

    source: Literal["hybrid"]
    name: FolderName
    generative: PartOfHybrid
    two_tower: PartOfHybrid
    candidates: Positive
    fusion: Literal["chosen", "reciprocal_rank", "calibrated", "rescored"]
    constant: PositiveFloat
    steps: Positive


def check_candidates(candidates: int, decoding: Decoding) -> None:
    """Check that each part can bring its candidates, and that they are enough.

    Raises:
        InputError: the beam is narrower, or fewer than the recommendations.
    """
    if decoding.beams < candidates:
        raise InputError(
            f"decoding.beams={decoding.beams}: must be at least backbone.candidates={candidates}, which the language "
            "model brings to the fusion"
        )
    check_enough(candidates, decoding.top_k)


def check_enough(candidates: int, k: int) -> None:
    """Check that there are enough candidates for k recommendations.

    Raises:
        InputError: there aren't.
    """
    if candidates < k:
        raise InputError(f"backbone.candidates={candidates}: must be at least {k}, the number of recommendations")
