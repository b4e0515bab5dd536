"""PISA: users who shifted are drawn to where their new data takes them, those who didn't to where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import Positive, PositiveFloat
from peso_cli.methods.parts import STRICT, Penalty
from peso_cli.methods.settings import Strength
from peso_cli.two_tower.settings import LEARNER

if TYPE_CHECKING:
    from peso_cli.two_tower.parts import StrategyStart

Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]


@dataclass(frozen=True, config=STRICT)
class Pisa:
    """strength x mean over a step's users of p_u InfoNCE_u(forward) + s_u InfoNCE_u(previous).

    InfoNCE as in `contrastive`, over the step's users whom the stage before knew: to their vectors in a forward model,
    which is fine-tuned from the stage before on this stage's data alone, and to those that the stage before left. Items
    are clustered by the vectors of the stage before; a user's shares of the clusters are the softmax of
    cos(vector, centre) / tau, in the previous model with its centres and in the forward model with the means of the
    same items' forward vectors. A user's shift d_u is the Jensen-Shannon divergence of the two, stretched to reach from
    0 to 1 over the stage's users. The plasticity weights are p_u = d_u, the stability weights s_u = 1 - d_u; of each,
    only the users with the largest weights keep theirs, the others have 0.

    After "Embracing Plasticity: Balancing Stability and Plasticity in Continual Recommender Systems" (SIGIR 2025):
    shifts from distances to item clusters, forward and backward knowledge, mutual information with the one that fits
    the user. The stretching and the form of the shares are this package's.

    Attributes:
        strength: the weight of the penalty.
        temperature: tau.
        clusters: how many clusters of items (fewer where there are fewer items).
        plasticity_share, stability_share: of the users, those that keep each of the weights.
    """

    strength: Strength
    temperature: PositiveFloat
    clusters: Positive
    plasticity_share: Share
    stability_share: Share
    name: Literal["pisa"] = "pisa"
    learner: ClassVar[str] = LEARNER

    def begin(self, start: StrategyStart) -> Penalty | None:
        """Train the forward model and weigh the users."""
        from peso_cli.two_tower.holding import to_both

        if not self.strength:
            return None
        shares = self.plasticity_share, self.stability_share
        return to_both(start, self.strength, self.temperature, self.clusters, shares)
