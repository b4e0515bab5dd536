"""The synthetic dataset: what its configuration may say, and the world behind the interface of every dataset."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT
from peso_cli.data.blocks import Dataset
from peso_cli.data.synthetic_world import World

Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]


@dataclass(frozen=True, config=STRICT)
class SyntheticDataset:
    """A generated world of users and items whose tastes and trends move between stages.

    Attributes:
        source: marks the dataset as generated.
        name: the dataset's name in paths and tables.
        users: distinct users over all stages.
        items: items of the catalog, those of later stages included.
        stages: number of stages T.
        seed: the world's own seed; the seed of training leaves the world as it is.
        base_share: share of all interactions that fall into stage 1; the later stages split the rest evenly.
        new_users: share of a later stage's users whom no earlier stage knows.
        dormant_users: share of a later stage's known users who were absent from the stage just before.
        new_items: share of the catalog that appears only after stage 1, evenly over the later stages.
        mean_events: events of a user in a stage on average; the fewest are 5.
        follow: weight of going on in the series of the last item, the part of the signal that lies in the order.
        explore: share of the remaining weight that goes by the stage's popularity alone, not by taste.
        taste_drift: chance that an interest of a user moves on to another theme from one stage to the next.
        trend: how much of the popularity is renewed from one stage to the next: 0 nothing, 1 everything.
        shared_ids: share of the items that carry the semantic ID of another item of their series.
    """

    source: Literal["synthetic"]
    name: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
    users: Annotated[int, Field(strict=True, ge=20, le=1_000_000)]
    items: Annotated[int, Field(strict=True, ge=30, le=100_000)]
    stages: Annotated[int, Field(strict=True, ge=1, le=100)]
    seed: Annotated[int, Field(strict=True, ge=0)]
    base_share: Annotated[float, Field(strict=True, ge=0.5, le=0.95)]
    new_users: Annotated[float, Field(strict=True, ge=0.0, le=0.9)]
    dormant_users: Share
    new_items: Annotated[float, Field(strict=True, ge=0.0, le=0.4)]
    mean_events: Annotated[float, Field(strict=True, ge=5.0, le=50.0)]
    follow: Annotated[float, Field(strict=True, ge=0.0, le=0.9)]
    explore: Annotated[float, Field(strict=True, ge=0.01, le=1.0)]
    taste_drift: Share
    trend: Share
    shared_ids: Annotated[float, Field(strict=True, ge=0.0, le=0.3)]


def generate(config: SyntheticDataset) -> Dataset:
    """Return the world of a configuration as a dataset; a stage's events are drawn when its block is first asked for.

    Equal configurations give equal worlds, byte for byte. `ceiling(stage)` holds the figures that ranking by the
    generator's own probabilities attains in expectation.
    """
    world = World(config)
    return Dataset(
        name=config.name,
        catalog=world.catalog,
        stages=config.stages,
        read=world.block,
        has=lambda stage: 1 <= stage <= config.stages,
        ceiling=lambda stage: world.figures(stage),
        about={"recommended": "all", "fit_on": "generated"},
    )
