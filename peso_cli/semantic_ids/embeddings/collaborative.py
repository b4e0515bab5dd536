"""Embeddings of items by who had them in stage 1: the item tower of a two-tower model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, Natural, NonNegativeFloat, Positive, PositiveFloat
from peso_cli.semantic_ids.parts import Floats, Items

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True, config=STRICT)
class Collaborative:
    """The item vectors of LightGCN (He et al., SIGIR 2020, arXiv 2002.02126), trained by BPR on stage 1's events.

    What users are asked for in validation and test is left out, and so are later stages: nothing of them leaks. Items
    that nobody had get the zero vector, and are counted.

    Attributes:
        width: of the vectors.
        layers: steps over the graph of users and items; 0 is matrix factorisation.
        epochs: passes over all events.
        learning_rate: of Adam.
        batch: events of a step, each with an item that its user didn't have.
        l2: factor on half the squared entries of the vectors in a step.
        initial_std: standard deviation of the vectors before training.
        seed: of everything random.
    """

    width: Positive
    layers: Natural
    epochs: Positive
    learning_rate: PositiveFloat
    batch: Positive
    l2: NonNegativeFloat
    initial_std: PositiveFloat
    seed: Natural
    name: Literal["collaborative"] = "collaborative"

    def embed(self, items: Items, display: Display) -> Floats:
        """Return (items, width) vectors; the same seed gives the same bytes with any number of threads.

        Raises:
            InputError: there are no events, or a user had all items.
            RunError: training diverged.
        """
        from peso_cli.semantic_ids.embeddings.taste import embed_by_users

        return embed_by_users(self, items, display)
