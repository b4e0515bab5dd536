"""Residual k-means: each level's codes are the clusters of what the levels before left over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Positive
from peso_cli.semantic_ids.parts import Codes, Floats, Tick

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@plain_dataclass(frozen=True, eq=False)
class Centers:
    """Codebooks whose levels quantize the embeddings themselves.

    Attributes:
        centers: for each level, (codes, width) its centres.
    """

    centers: tuple[Floats, ...]

    def latents(self, embeddings: Floats) -> Floats:
        """Return the embeddings."""
        return embeddings

    def decode(self, latents: Floats) -> Floats:
        """Return the sums of centres, which are embeddings."""
        return latents

    def tensors(self) -> Mapping[str, NDArray[np.float32]]:
        """Return the centres by the name of their level: `centers.0`, …"""
        return {f"centers.{level}": centers for level, centers in enumerate(self.centers)}


@dataclass(frozen=True, config=STRICT)
class RQKMeans:
    """Residual k-means (RQ-KMeans; as in QARM, arXiv 2411.11739, and OneRec, arXiv 2502.18965).

    Balanced levels assign the fitted items so that the loads of a level's codes differ by one at most, which splits
    dense clusters where plain k-means would leave many items with one semantic ID. Items that come later get the
    nearest codes. The same seed gives the same bytes with any number of threads.

    Attributes:
        levels: number of codes in a semantic ID.
        codes: number of codes of each level.
        balanced: which levels' codes get equal shares of the items: `none`, `later` (all but the first, whose clusters
            keep the sizes that they have) or `all`.
        iterations: most rounds of k-means for each level.
        sample: most embeddings that a level is fitted on; None for all.
    """

    levels: Annotated[int, Field(strict=True, ge=1, le=16)]
    codes: Annotated[int, Field(strict=True, ge=2, le=65_536)]
    balanced: Literal["none", "later", "all"]
    iterations: Positive
    sample: Positive | None
    name: str

    def fit(self, embeddings: Floats, seed: int, tick: Tick) -> tuple[Centers, Codes]:
        """Fit centres to (n, width) embeddings, which may be a memory map.

        Returns:
            The codebooks and the (n, levels) codes of the embeddings.

        Raises:
            InputError: there are fewer distinct embeddings (in the sample) than codes.
        """
        from peso_cli.semantic_ids.residual_kmeans import Plan, fit_levels

        first, later = self.balanced == "all", self.balanced != "none"
        plan = Plan([first, *[later] * (self.levels - 1)], self.codes, self.iterations, self.sample)
        centers, codes = fit_levels(embeddings, plan, seed, tick)
        return Centers(centers), codes

    def load(self, tensors: Mapping[str, NDArray[np.float32]]) -> Centers:
        """Make codebooks again from their tensors."""
        return Centers(tuple(tensors[f"centers.{level}"] for level in range(len(tensors))))
