"""Regularizers: what ties the current factors to their anchor.

A regularizer is a frozen dataclass that its YAML fills in. At a stage's begin it takes the anchor (the factors as the
previous stage left them) and returns the penalty: a function that is called at every optimiser step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    import torch

_STRICT = ConfigDict(extra="forbid")

Strength = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Reduction = Literal["mean", "sum"]
Factors = Mapping[str, tuple["torch.Tensor", "torch.Tensor"]]
"""Target module's name to its LoRA factors: A of shape (rank, in) and B of shape (out, rank)."""

Penalty = Callable[[], "torch.Tensor"]


class Regularizer(Protocol):
    """What a stage needs of a regularizer."""

    @property
    def name(self) -> str:
        """The name by which a config chooses it."""

    def begin(self, factors: Factors) -> Penalty | None:
        """Take the factors' present values as the anchor; return strength x penalty as a function, or None."""


@dataclass(frozen=True, config=_STRICT)
class NoRegularizer:
    """Nothing holds the factors back."""

    name: Literal["none"] = "none"

    def begin(self, factors: Factors) -> None:
        """Return no penalty."""
        return None


@dataclass(frozen=True, config=_STRICT)
class SoftmaxKL:
    """PESO's proximal term (arXiv 2510.25093): strength x sum over factors of KL(softmax(v) || softmax(anchor)).

    Attributes:
        strength: the paper's lambda.
        reduction: `sum` over factors as the paper writes it, or KL(A) + KL(B) averaged over modules (`mean`).
        smoothing: added to every probability before both are normalised: 1e-8 in the released code, 0 in the paper.
    """

    strength: Strength
    reduction: Reduction
    smoothing: Strength
    name: Literal["softmax_kl"] = "softmax_kl"

    def begin(self, factors: Factors) -> Penalty | None:
        """Anchor every factor at its present value."""
        from peso_cli.methods import penalties

        smoothed = partial(penalties.smoothed_softmax_kl, smoothing=self.smoothing)
        compare = smoothed if self.smoothing else penalties.softmax_kl
        return penalties.anchored(factors, self.strength, self.reduction, compare, compare)


@dataclass(frozen=True, config=_STRICT)
class L2:
    """Squared distance to the anchor, or the distance itself as in the released code (`unsquared`)."""

    strength: Strength
    reduction: Reduction
    unsquared: bool
    name: Literal["l2"] = "l2"

    def begin(self, factors: Factors) -> Penalty | None:
        """Anchor every factor at its present value."""
        from peso_cli.methods import penalties

        distance = penalties.plain_distance if self.unsquared else penalties.squared_distance
        return penalties.anchored(factors, self.strength, self.reduction, distance, distance)


@dataclass(frozen=True, config=_STRICT)
class Orthogonal:
    """Squares of A Aprev^T and of B^T Bprev: new directions are pushed away from the anchored ones."""

    strength: Strength
    reduction: Reduction
    name: Literal["orthogonal"] = "orthogonal"

    def begin(self, factors: Factors) -> Penalty | None:
        """Anchor every factor at its present value."""
        from peso_cli.methods import penalties

        return penalties.anchored(
            factors, self.strength, self.reduction, penalties.orthogonality_a, penalties.orthogonality_b
        )


RegularizerPart = Annotated[NoRegularizer | SoftmaxKL | L2 | Orthogonal, Field(discriminator="name")]
"""The regularizers a config can choose; a new one is added here."""
