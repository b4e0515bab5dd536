"""Data sets that the datasets library reads, from the Hugging Face hub or a local folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from peso_cli.data.raw import RawDataset
from peso_cli.data.sources.frames import Raw, collecting, first_line
from peso_cli.data.sources.layouts import together
from peso_cli.data.sources.table import ROW, Table, events_of, items_of
from peso_cli.data.sources.tables import event_columns, item_columns
from peso_cli.errors import InputError, RunError
from peso_cli.resources.hub import hub_answers
from peso_cli.stages import Display


def read_hugging_face(config: RawDataset, display: Display) -> Raw:
    """Open the data sets of a configuration, each given as NAME or NAME:SPLIT; without a split, all one after another.

    Raises:
        InputError: there is no such data set or split, or it lacks a column.
        RunError: the hub can't be reached, or doesn't give it.
    """
    events, items = [], []
    for entry in config.interactions:
        tables = _tables(entry, "dataset.interactions", display)
        events += [events_of(table, event_columns(config), "dataset.columns") for table in tables]
    for entry in config.items:
        tables = _tables(entry, "dataset.items", display)
        items += [items_of(table, item_columns(config), "dataset.item_columns") for table in tables]
    return together(events, items)


def _tables(entry: str, setting: str, display: Display) -> list[Table]:
    display.say(f"loading {entry} with the datasets library")
    local = Path(entry).expanduser()
    if local.exists():
        splits = _load(f"{setting}={entry}", str(local), None, local=True)
    else:
        name, _, split = entry.partition(":")
        local = Path(name).expanduser()
        where = str(local) if local.exists() else name
        splits = _load(f"{setting}={entry}", where, split or None, local=local.exists())
    return [_table(data, f"{entry}[{split}]") for split, data in splits.items()]


def _load(shown: str, name: str, split: str | None, local: bool) -> dict[str, Any]:
    """Return the splits of a data set by their names."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    online = local or hub_answers()
    try:
        with nullcontext() if online else _offline():
            loaded = datasets.load_dataset(name)
    except Exception as error:  # whatever a file, a name, the network or the hub makes the library raise
        if not online:
            raise RunError(
                f"{shown}: isn't in the cache of the datasets library, and the hub can't be reached"
            ) from None
        kind = InputError if local or isinstance(error, datasets.exceptions.DatasetNotFoundError) else RunError
        raise kind(f"{shown}: can't be loaded ({first_line(error.__cause__ or error)})") from None
    if split is not None and split not in loaded:
        raise InputError(f"{shown}: no split {split!r}; there are {', '.join(loaded)}")
    return dict(loaded) if split is None else {split: loaded[split]}


@contextmanager
def _offline() -> Iterator[None]:
    """Let the library look into its own cache at once, which otherwise comes after half a minute of asking the hub."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _table(data: Any, shown: str) -> Table:
    with collecting(shown):
        frame = data.with_format("polars")[:]
    names = frame.columns
    return Table(frame.lazy().with_row_index(ROW), {name: name for name in names}, shown, 1)
