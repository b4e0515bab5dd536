"""Small raw files in every layout, and a short way to read them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl

from peso_cli.data.raw import EventColumns, ItemColumns, RawDataset
from peso_cli.data.sources.frames import Raw, collecting
from peso_cli.data.sources.open import open_raw

COLUMNS = EventColumns(user="user", item="item", timestamp="time", rating="stars")
ITEM_COLUMNS = ItemColumns(item="item", title="title", description="about", brand="maker", categories="kinds")


class Quiet(list):
    """A display that keeps the lines it was told."""

    def say(self, text):
        self.append(text)

    def bar(self, title):
        return lambda done, total, note: None


def config(source, interactions, items=(), columns=COLUMNS, item_columns=ITEM_COLUMNS, checksums=()) -> RawDataset:
    return RawDataset(
        source=source,
        name="mine",
        path="unused",
        interactions=tuple(map(str, interactions)),
        items=tuple(map(str, items)),
        checksums=checksums,
        columns=columns,
        item_columns=item_columns,
    )


def open_files(source, interactions, items=(), **settings) -> Raw:
    return open_raw(config(source, interactions, items, **settings), Quiet())


def collected(raw: Raw) -> tuple[pl.DataFrame, pl.DataFrame]:
    with collecting("the files"):
        return raw.events.collect(engine="streaming"), raw.items.collect(engine="streaming")


def read(source, interactions, items=(), **settings):
    """Return the events as (user, item, timestamp, rating) and the items as tuples."""
    events, found = collected(open_files(source, interactions, items, **settings))
    return events.drop("place").rows(), found.rows()


def places(source, interactions, **settings) -> list[str]:
    """Return where each event stood."""
    events, _ = collected(open_files(source, interactions, **settings))
    return [Path(place).name for place in events["place"]]


def write(path: Path, text: str | bytes, encoding="utf-8") -> Path:
    """Write a file, packed where its name ends so."""
    content = text.encode(encoding) if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def json_lines(*objects) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in objects)
