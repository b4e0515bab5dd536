"""Raw interactions: what a configuration may say about their source, their cleaning and their split into stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT, FolderName, Natural, Positive

Column = Annotated[str, Field(min_length=1)]

SourceName = Literal[
    "csv", "tsv", "jsonl", "parquet", "amazon_2023", "amazon_2018", "yelp", "movielens", "recbole", "hugging_face"
]


@dataclass(frozen=True, config=STRICT)
class EventColumns:
    """What the columns of a table of interactions are called; `rating` may be absent."""

    user: Column
    item: Column
    timestamp: Column
    rating: Column | None


@dataclass(frozen=True, config=STRICT)
class ItemColumns:
    """What the columns of a table of items are called; all but `item` may be absent."""

    item: Column
    title: Column | None
    description: Column | None
    brand: Column | None
    categories: Column | None


@dataclass(frozen=True, config=STRICT)
class RawDataset:
    """Interactions as somebody logged them, from which `peso data build` makes stages.

    Attributes:
        source: the layout of the files.
        name: the dataset's name in paths and tables.
        path: the folder that `peso data build` fills.
        interactions: files, folders, URLs, or a fetched resource; for `hugging_face` the dataset's name.
        items: the same for the texts of items; empty where there are none.
        checksums: SHA-256 for each URL among `interactions` and `items`, in that order; empty to take what comes.
        columns: names of the columns of interactions, for the sources whose layout doesn't fix them (tables and
            `hugging_face`); None for the others.
        item_columns: names of the columns of items, likewise.
    """

    source: SourceName
    name: FolderName
    path: str
    interactions: Annotated[tuple[str, ...], Field(min_length=1)]
    items: tuple[str, ...]
    checksums: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...]
    columns: EventColumns | None = None
    item_columns: ItemColumns | None = None


@dataclass(frozen=True, config=STRICT)
class Cleaning:
    """Which interactions count.

    Attributes:
        on_bad_row: `fail` ends the build at rows that can't be read; `drop` leaves them out and says how many.
        time_unit: of numeric timestamps; `auto` tells seconds from milliseconds by their size. ISO 8601 is read always.
        duplicates: `events` drops repeated (user, item, timestamp), `pairs` all but a user's first event with an item,
            `keep` nothing.
        min_rating: the lowest rating that counts as an interaction; null: all.
        core_users: fewest events of a user, over users and items to the fixed point; 0: any.
        core_items: fewest events of an item, likewise.
        earliest: first moment that counts, as ISO 8601; null: all.
        latest: first moment that doesn't count any more, likewise.
    """

    on_bad_row: Literal["fail", "drop"]
    time_unit: Literal["auto", "s", "ms"]
    duplicates: Literal["events", "pairs", "keep"]
    min_rating: float | None
    core_users: Natural
    core_items: Natural
    earliest: str | None
    latest: str | None


@dataclass(frozen=True, config=STRICT)
class Split:
    """How interactions fall into stages.

    Attributes:
        kind: `chronological` cuts time for all users at once; `user_disjoint` gives each user, with all events, to one
            stage by the time of the user's first event: no user comes back (the paper's control).
        by: `shares` of the interactions (of the users, where disjoint), `dates` at which the stages from the second on
            begin, or equal `periods` of time.
        shares: for `shares`, one number for each stage; they sum to 1.
        dates: for `dates`, ISO 8601, ascending.
        periods: for `periods`, the number of stages.
        min_events: fewest events of a user in a stage; what falls short is left out of that stage.
    """

    kind: Literal["chronological", "user_disjoint"]
    by: Literal["shares", "dates", "periods"]
    shares: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(min_length=2)]
    dates: tuple[str, ...]
    periods: Annotated[int, Field(strict=True, ge=2, le=1000)]
    min_events: Positive


@dataclass(frozen=True, config=STRICT)
class BuiltDataset:
    """A folder that `peso data build` has filled and `peso tokenize` has given semantic IDs.

    Attributes:
        source: marks the dataset as built.
        name: its name in paths and tables.
        path: the folder.
        semantic_ids: which of the folder's semantic IDs; null: the only ones there are.
        catalog: the items that are recommended at a stage: those `visible` by then, or `all` that the build knew.
        sample_users: most users of each stage that take part; None for all.
        sample_seed: seed of the order in which users are taken, the same order in every stage.
    """

    source: Literal["built"]
    name: FolderName
    path: str
    semantic_ids: FolderName | None
    catalog: Literal["visible", "all"]
    sample_users: Positive | None = None
    sample_seed: Natural = 1
