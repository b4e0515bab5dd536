"""Contrastive with personalised imitation weights: how much each user is held is learnt from the user's shift."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import Positive, PositiveFloat
from peso_cli.methods.parts import STRICT, Penalty
from peso_cli.methods.settings import Strength
from peso_cli.two_tower.settings import LEARNER

if TYPE_CHECKING:
    from peso_cli.two_tower.parts import StrategyStart


@dataclass(frozen=True, config=STRICT)
class ContrastivePiw:
    """`contrastive`, with the term of each user u weighted by w_u.

    Items are clustered by the vectors that the stage before left. A user's shares of the clusters are the softmax over
    clusters of cos(vector, centre) / tau: before, of the user's vector; now, of the mean of the vectors of those items
    that the stage trains the user on. A network of one hidden layer maps the difference of the two (clusters) to a
    score; the w of a step's n users are n times the softmax of their scores, so that they average to 1. The network
    trains with the model and is dropped after the stage. After "Structure Aware Incremental Learning with Personalized
    Imitation Weights for Recommender Systems" (AAAI 2023, arXiv 2305.01204), which learns a weight for each user from
    how its preferences changed; the form of the shares and of the network is this package's.

    Attributes:
        strength: the weight of the penalty.
        temperature: tau.
        clusters: how many clusters of items (fewer where there are fewer items).
        hidden: width of the network.
    """

    strength: Strength
    temperature: PositiveFloat
    clusters: Positive
    hidden: Positive
    name: Literal["contrastive_piw"] = "contrastive_piw"
    learner: ClassVar[str] = LEARNER

    def begin(self, start: StrategyStart) -> Penalty | None:
        """Keep the vectors of the stage before, look at the users' shifts, and add the network to the model."""
        from peso_cli.two_tower.holding import imitation_weights, to_previous

        if not self.strength:
            return None
        weights = imitation_weights(start, self.clusters, self.temperature, self.hidden)
        return to_previous(start, self.strength, self.temperature, weights)
