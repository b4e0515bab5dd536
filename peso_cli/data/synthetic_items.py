"""The items of the synthetic world: themes hold series, series hold editions, and later stages bring new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peso_cli.semantic_ids.catalog import Catalog

if TYPE_CHECKING:
    from peso_cli.data.synthetic import SyntheticDataset

_THEMES = (
    ("Hiking", "Boots"), ("Coffee", "Grinder"), ("Garden", "Shears"), ("Cycling", "Helmet"), ("Baking", "Mould"),
    ("Chess", "Set"), ("Sailing", "Jacket"), ("Guitar", "Pedal"), ("Watercolour", "Box"), ("Camping", "Stove"),
    ("Running", "Shoes"), ("Puzzle", "Cube"), ("Desk", "Lamp"), ("Yoga", "Mat"), ("Fishing", "Reel"), ("Tea", "Kettle"),
    ("Piano", "Stool"), ("Climbing", "Harness"), ("Sewing", "Kit"), ("Astronomy", "Telescope"),
)  # fmt: skip
_SERIES = (
    "Northwind", "Juniper", "Halcyon", "Ember", "Tidewater", "Larkspur", "Granite", "Meridian", "Willow", "Copperfield",
    "Solstice", "Harbour", "Falcon", "Marigold", "Cinder", "Quarry", "Nimbus", "Thistle", "Beacon", "Rowan",
)  # fmt: skip
_EDITIONS = (
    "Classic", "Mini", "Deluxe", "Pro", "Travel", "Studio", "Heritage", "Lite", "Junior", "Midnight", "Signature",
    "Explorer", "Eco", "Duo", "Sport", "Atelier", "Compact", "Anniversary", "Master", "Urban",
)  # fmt: skip
_FOLLOWERS = 3


@dataclass(frozen=True, eq=False)
class Structure:
    """Where each item stands in the hierarchy. Items are numbered by first appearance, position by position.

    Attributes:
        width: number of themes, and of series in each theme.
        series: (items,) the item's series, 0 to width² - 1; its theme is `series // width`.
        edition: (items,) the item's edition, which runs on with its position in the series and wraps around.
        launch: (items,) the stage in which the item appears.
        followers: (items + 1, 3) the next three items of the series; `items` stands for none, as row and as entry.
    """

    width: int
    series: NDArray[np.int64]
    edition: NDArray[np.int64]
    launch: NDArray[np.int64]
    followers: NDArray[np.int64]


def lay_out(config: SyntheticDataset, rng: np.random.Generator) -> Structure:
    """Place the items in a hierarchy of three levels of about equal width.

    A series begins with an edition of its own, so that new items carry codes which are known from elsewhere.
    """
    item = np.arange(config.items)
    width = round(config.items ** (1 / 3))
    series = rng.permutation(width**2)[item % width**2]
    position = item // width**2
    editions = int(position[-1]) + 1
    edition = (position + rng.integers(editions, size=width**2)[series]) % editions
    ahead = np.arange(config.items + 1)[:, None] + width**2 * np.arange(1, _FOLLOWERS + 1)
    return Structure(width, series, edition, _launches(config), np.minimum(ahead, config.items))


def _launches(config: SyntheticDataset) -> NDArray[np.int64]:
    launch = np.ones(config.items, dtype=np.int64)
    if config.stages > 1:
        late = np.array_split(
            np.arange(config.items - round(config.new_items * config.items), config.items), config.stages - 1
        )
        for stage, items in enumerate(late, start=2):
            launch[items] = stage
    return launch


def make_catalog(config: SyntheticDataset, structure: Structure, rng: np.random.Generator) -> Catalog:
    """Return the catalog: codes (theme, series in its theme, edition) and a title that names all three.

    An item with a shared semantic ID takes the edition code of the item before it in its series.
    """
    theme, inside = np.divmod(structure.series, structure.width)
    titles = map(_title, theme.tolist(), inside.tolist(), structure.edition.tolist())
    items = tuple(f"item{number}" for number in range(config.items))
    edition = structure.edition.copy()
    odd = np.flatnonzero(np.arange(config.items) // structure.width**2 % 2)
    sharing = rng.choice(odd, size=round(config.shared_ids * config.items), replace=False)
    edition[sharing] = structure.edition[sharing - structure.width**2]
    return Catalog(
        items, np.stack([theme, inside, edition], axis=1).astype(np.int32), dict(zip(items, titles, strict=True))
    )


def _title(theme: int, series: int, edition: int) -> str:
    again, place = divmod(theme, len(_THEMES))
    field, product = _THEMES[place]
    return f"{_word(_SERIES, series)} {_word((field,), again)} {product}, {_word(_EDITIONS, edition)} Edition"


def _word(words: tuple[str, ...], number: int) -> str:
    """Return the word of a number; past the end of the list the words come again, counted: `Ember 2`."""
    again, place = divmod(number, len(words))
    return f"{words[place]} {again + 1}" if again else words[place]
