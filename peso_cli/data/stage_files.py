"""Writing the folder of one stage, some events at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from peso_cli.data.event_files import Events, run_starts
from peso_cli.data.layout import FORMAT, INTERACTIONS, ITEMS, STAGE_MANIFEST, StageFolder
from peso_cli.data.reading import read_object
from peso_cli.data.sources.frames import ITEM_SCHEMA, collecting
from peso_cli.files import fsync_folder, sha256, write_json

_EVENT_COLUMNS = pa.schema([("user", pa.large_string()), ("item", pa.large_string()), ("timestamp", pa.int64())])
_ITEM_COLUMNS = pa.schema([(name, pa.large_string()) for name in ITEM_SCHEMA])
_ITEMS_AT_ONCE = 100_000


@dataclass(frozen=True)
class StageFigures:
    """What a stage holds.

    Attributes:
        stage: its number, from 1.
        users: users with events in it.
        new_users: those of them that no earlier stage has.
        items: items with events in it.
        new_items: those of them that no earlier stage has.
        interactions: events.
        first_timestamp: the first moment, in milliseconds since 1970 UTC.
        last_timestamp: the last moment, likewise.
        origin: the command that made it.
    """

    stage: int
    users: int
    new_users: int
    items: int
    new_items: int
    interactions: int
    first_timestamp: int
    last_timestamp: int
    origin: str

    @property
    def line(self) -> str:
        """The same in words."""
        counts = f"{self.users:,} users ({self.new_users:,} new), {self.items:,} items ({self.new_items:,} new)"
        return f"stage {self.stage}: {self.interactions:,} interactions, {counts}"


def read_figures(folder: StageFolder) -> StageFigures:
    """Read what a finished stage holds."""
    document = read_object(folder.manifest)
    return StageFigures(**{field.name: document[field.name] for field in fields(StageFigures)})


class StageWriter:
    """Writes a stage's events as they come and counts them."""

    def __init__(self, folder: StageFolder, users: pl.Series, items: pl.Series) -> None:
        """Begin `interactions.parquet` in a new folder; `users` and `items` are the ids by number."""
        folder.folder.mkdir(parents=True)
        self._folder, self._users, self._items = folder, users, items
        self._file = pq.ParquetWriter(folder.interactions, _EVENT_COLUMNS, compression="zstd")
        self._seen = np.zeros(len(items), dtype=bool)
        self._rows = self._user_count = self._new_users = 0
        self._extent: tuple[int, int] | None = None

    def add(self, events: Events, new_users: int) -> None:
        """Write events, user by user and in time order; `new_users` of their users are in no earlier stage."""
        if not len(events):
            return
        users, items, moments = (np.ascontiguousarray(events[name]) for name in ("user", "item", "moment"))
        table = pl.DataFrame(
            {
                "user": self._users.gather(pl.Series(users)),
                "item": self._items.gather(pl.Series(items)),
                "timestamp": moments,
            }
        )
        self._file.write_table(_arrow(table, _EVENT_COLUMNS))
        self._seen[items] = True
        self._rows += len(events)
        self._user_count += len(run_starts(users))
        self._new_users += new_users
        first, last = self._extent or (int(moments[0]), int(moments[0]))
        self._extent = min(first, int(moments.min())), max(last, int(moments.max()))

    def close(self) -> NDArray[np.int64]:
        """End the file, and return the numbers of the items that it has, ascending."""
        self._file.close()
        return np.flatnonzero(self._seen)

    def finish(self, new_items: pl.Series, texts: Path, origin: str, **more: Any) -> StageFigures:
        """Write the items that no earlier stage has and the stage's manifest.

        Args:
            new_items: their ids, in the order of the file.
            texts: Parquet file with their texts.
            origin: what made the stage: `build` or `append`.
            more: what else the manifest says.
        """
        assert self._extent is not None, "a stage that is finished has events"
        _write_items(self._folder.items, new_items, texts)
        figures = StageFigures(
            self._folder.stage,
            self._user_count,
            self._new_users,
            int(self._seen.sum()),
            len(new_items),
            self._rows,
            *self._extent,
            origin,
        )
        for name in (INTERACTIONS, ITEMS):
            _flush(self._folder.folder / name)
        files = {name: sha256(self._folder.folder / name) for name in (INTERACTIONS, ITEMS)}
        write_json(self._folder.folder / STAGE_MANIFEST, {"format": FORMAT, **asdict(figures), **more, "files": files})
        fsync_folder(self._folder.folder)
        return figures


def _arrow(table: pl.DataFrame, columns: pa.Schema) -> pa.Table:
    return table.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(columns)


def _write_items(path: Path, items: pl.Series, texts: Path) -> None:
    """Write the rows of some items, in their order; an item without texts has nulls."""
    found = pl.scan_parquet(texts, glob=False)
    with pq.ParquetWriter(path, _ITEM_COLUMNS, compression="zstd") as file:
        for some in pl.DataFrame({"item": items.cast(pl.String)}).iter_slices(_ITEMS_AT_ONCE):
            joined = some.lazy().join(found, on="item", how="left", maintain_order="left").select(*ITEM_SCHEMA)
            file.write_table(_arrow(joined.collect(engine="streaming"), _ITEM_COLUMNS))


def _flush(path: Path) -> None:
    with path.open("rb+") as handle:
        os.fsync(handle.fileno())


def write_texts(path: Path, items: pl.LazyFrame, wanted: Sequence[pl.Series]) -> None:
    """Write the texts of some items, of all that a source has, to a Parquet file.

    Args:
        path: the file.
        items: columns of ITEM_SCHEMA.
        wanted: ids of the items.
    """
    ids = pl.DataFrame({"item": pl.concat(wanted)}, schema={"item": pl.String}).lazy()
    with collecting("dataset.items"):
        items.select(*ITEM_SCHEMA).join(ids, on="item", how="semi").sink_parquet(path, engine="streaming")
