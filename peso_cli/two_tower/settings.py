"""What a configuration may say of a two-tower backbone."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, FolderName, Fraction, NonNegativeFloat, Positive, PositiveFloat

LEARNER = "two_tower"
"""What adapters and regularizers for these backbones have as their `learner`."""


@dataclass(frozen=True, config=STRICT)
class _Towers:
    """What all models share.

    Attributes:
        name: the backbone's name in paths and tables.
        width: entries of a vector.
        initial_std: standard deviation of what new vectors are drawn from, around zero.
        batch: interactions (`sasrec`: sequences) of an optimiser step.
        seen: whether items of a user's history and training interactions are left out of what is recommended.
    """

    name: FolderName
    width: Positive
    initial_std: PositiveFloat
    batch: Positive
    seen: Literal["left_out", "kept"]


@dataclass(frozen=True, config=STRICT)
class _Pairwise(_Towers):
    """What the models with a vector for each user share.

    Attributes:
        l2: factor on half the squared entries of the vectors in a step, per interaction.
        cold_start: where a stage goes on from the one before, the vector of a new user or item begins as it was drawn
            (`random`), or as the mean of those of its known counterparts in the stage's training interactions.
    """

    l2: NonNegativeFloat
    cold_start: Literal["neighbours", "random"]


@dataclass(frozen=True, config=STRICT)
class Bpr(_Pairwise):
    """Matrix factorisation by Bayesian personalised ranking (Rendle et al., UAI 2009, arXiv 1205.2618)."""

    source: Literal["bpr"]


@dataclass(frozen=True, config=STRICT)
class LightGcn(_Pairwise):
    """LightGCN (He et al., SIGIR 2020, arXiv 2002.02126): vectors averaged over `layers` of the interaction graph."""

    source: Literal["lightgcn"]
    layers: Positive


@dataclass(frozen=True, config=STRICT)
class SasRec(_Towers):
    """SASRec (Kang and McAuley, ICDM 2018, arXiv 1808.09781): a causal transformer over a user's latest items.

    Attributes:
        layers, heads, feed_forward, dropout: of the transformer.
        negatives: items drawn for a step, over which, beside the target, its probability is taken; None for all items.
    """

    source: Literal["sasrec"]
    layers: Positive
    heads: Positive
    feed_forward: Positive
    dropout: Fraction
    negatives: Positive | None


TwoTower = Bpr | LightGcn | SasRec
