"""Adding a stage of new interactions to a built dataset, of which nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import TypeAdapter

from peso_cli.data.build import partition
from peso_cli.data.cleaning import (
    Dropped,
    Rule,
    keep_in_parts,
    refuse_none_left,
    rules_of,
    sort_parts,
)
from peso_cli.data.event_files import Events, Parts, events_of, long_runs, run_starts
from peso_cli.data.intake import take_in
from peso_cli.data.layout import FORMAT, MANIFEST, StageFolder, stage_folders
from peso_cli.data.provenance import inputs_of
from peso_cli.data.raw import Cleaning
from peso_cli.data.reading import read_object
from peso_cli.data.sources.frames import Raw
from peso_cli.data.stage_files import StageFigures, StageWriter, read_figures, write_texts
from peso_cli.data.temporary import move_into_place, temporary_beside
from peso_cli.data.timestamps import iso
from peso_cli.errors import InputError

if TYPE_CHECKING:
    from peso_cli.stages import Display

OnBadRow = Literal["fail", "drop"]


@dataclass(frozen=True)
class AppendReport:
    """What an append did.

    Attributes:
        root: the dataset's folder.
        stage: what the new stage holds.
        dropped: what each step dropped.
    """

    root: str
    stage: StageFigures
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, eq=False)
class _Built:
    """A dataset that is there.

    Attributes:
        stages: its stages.
        cleaning: how its interactions were cleaned.
        min_events: fewest events of a user in a stage.
        disjoint: whether no user may come back.
    """

    stages: list[StageFolder]
    cleaning: Cleaning
    min_events: int
    disjoint: bool

    @property
    def last_moment(self) -> int:
        """The last moment of the last stage."""
        return read_figures(self.stages[-1]).last_timestamp


@dataclass(frozen=True, eq=False)
class _Held:
    """What a dataset holds of the users and items of new interactions.

    Attributes:
        events: those of its events that new ones may repeat.
        users: (users,) whether it knows a user.
        items: (items,) whether it knows an item.
    """

    events: Parts
    users: NDArray[np.bool_]
    items: NDArray[np.bool_]


def append(
    root: Path, raw: Raw, display: Display, inputs: Sequence[str] = (), on_bad_row: OnBadRow | None = None
) -> AppendReport:
    """Add a stage with new interactions, cleaned as the dataset was built.

    The bounds of time and the core of items don't apply: they were meant for the interactions that were there. A user
    whom the dataset doesn't know needs as many events as its core asks of users. In a dataset of disjoint users, those
    whom it knows are left out.

    Args:
        root: the dataset's folder.
        raw: the tables of the new interactions and of the texts of their items.
        display: shows progress and what each step drops.
        inputs: the files behind `raw`, as they were given.
        on_bad_row: what happens at rows that can't be read or are earlier than the last stage ends; None: what the
            dataset was built with.

    Raises:
        InputError: there is no built dataset; rows can't be read or come too early; nothing is left.
        RunError: the stage came into being meanwhile.
    """
    built = _open(root)
    cleaning = replace(built.cleaning, on_bad_row=on_bad_row or built.cleaning.on_bad_row, earliest=None, latest=None)
    target = StageFolder(root, len(built.stages) + 1)
    with temporary_beside(target.folder) as folder:
        rules = [*rules_of(cleaning), _not_before(built, cleaning.on_bad_row)]
        intake = take_in(raw.events, rules, cleaning.time_unit, folder / "log", display)
        users, items, parts = partition(intake, folder, display)
        held = _held(built, users, items, _elsewhere(parts, folder / "held"))
        dropped = (*intake.dropped, *_clean(built, parts, held, display))
        writer = StageWriter(StageFolder(folder, target.stage), users, items)
        _fill(writer, parts, held)
        seen = writer.close()
        fresh = items.gather(pl.Series(seen[~held.items[seen]]))
        write_texts(folder / "texts.parquet", raw.items, [fresh])
        more = {"inputs": inputs_of(inputs), "dropped": [asdict(step) for step in dropped]}
        figures = writer.finish(fresh, folder / "texts.parquet", "append", **more)
        move_into_place(StageFolder(folder, target.stage).folder, target.folder)
    display.say(figures.line)
    return AppendReport(str(root), figures, dropped)


def _open(root: Path) -> _Built:
    if not (root / MANIFEST).is_file():
        raise InputError(f"dataset.path={root}: holds no built dataset; make one by peso data build")
    document = read_object(root / MANIFEST)
    if document.get("format") != FORMAT:
        raise InputError(f"{root / MANIFEST}: isn't of format {FORMAT}; build the dataset again")
    stages, settings = stage_folders(root), document["settings"]
    if len(stages) < document["stages"]:
        raise InputError(f"{root}: stage {len(stages) + 1} is missing; build the dataset again")
    cleaning = TypeAdapter(Cleaning).validate_python(settings["cleaning"])
    split = settings["split"]
    return _Built(stages, cleaning, split["min_events"], split["kind"] == "user_disjoint")


def _not_before(built: _Built, on_bad_row: OnBadRow) -> Rule:
    """Return the rule that new interactions don't come before the dataset's last one."""
    last = built.last_moment
    refusal = (
        f"are earlier than {iso(last)}, when stage {len(built.stages)} ends",
        "leave them out by cleaning.on_bad_row=drop, or build a dataset of all interactions",
    )
    return Rule(
        "earlier than the last stage's end", pl.col("moment") >= last, None if on_bad_row == "drop" else refusal
    )


def _elsewhere(parts: Parts, folder: Path) -> Parts:
    """Return parts of the same users in another folder, empty as yet."""
    folder.mkdir()
    return replace(parts, folder=folder)


def _held(built: _Built, users: pl.Series, items: pl.Series, events: Parts) -> _Held:
    """Find what a dataset holds of some users and items, and fill `events`."""
    known_users = np.zeros(len(users), dtype=bool)
    last = built.last_moment
    for stage in built.stages:
        for chunk in _known_events(stage, users, items):
            known_users[chunk["user"].to_numpy()] = True
            same = chunk.drop_nulls("item")
            if built.cleaning.duplicates != "pairs":
                same = same.filter(pl.col("timestamp") >= last)  # new events are no earlier
            events.add(events_of(same["user"].to_numpy(), same["item"].to_numpy(), same["timestamp"].to_numpy()))
    return _Held(events, known_users, _known_items(built, items))


def _known_events(stage: StageFolder, users: pl.Series, items: pl.Series) -> Iterator[pl.DataFrame]:
    """Yield a stage's events of some users; users and items are numbers, that of any other item is null."""
    table = pl.scan_parquet(stage.interactions, glob=False)
    of_users = table.join(_numbered("user", users), on="user").join(_numbered("item", items), on="item", how="left")
    columns = of_users.select(pl.col("user_number").alias("user"), pl.col("item_number").alias("item"), "timestamp")
    yield from columns.collect_batches(engine="streaming")


def _numbered(column: str, texts: pl.Series) -> pl.LazyFrame:
    numbers = np.arange(len(texts), dtype=np.uint32)
    return pl.DataFrame({column: texts, f"{column}_number": numbers}).lazy()


def _known_items(built: _Built, items: pl.Series) -> NDArray[np.bool_]:
    files = [pl.scan_parquet(stage.items, glob=False).select("item") for stage in built.stages]
    known = _numbered("item", items).join(pl.concat(files), on="item", how="semi").collect(engine="streaming")
    found = np.zeros(len(items), dtype=bool)
    found[known["item_number"].to_numpy()] = True
    return found


def _clean(built: _Built, parts: Parts, held: _Held, display: Display) -> Iterator[Dropped]:
    """Drop what comes again or is too little, step by step."""
    tick = display.bar("cleaning")
    yield _said(sort_parts(parts, built.cleaning.duplicates, tick, held.events), display)
    for step, keep in _steps(built, held).items():
        yield _said(keep_in_parts(parts, lambda _, events, keep=keep: events[keep(events)], step, tick), display)  # type: ignore[misc]


def _steps(built: _Built, held: _Held) -> dict[str, Callable[[Events], NDArray[np.bool_]]]:
    """Return, by the step's name, what tells which of a part's events to keep."""
    steps: dict[str, Callable[[Events], NDArray[np.bool_]]] = {}
    if built.disjoint:
        steps["users of earlier stages"] = lambda events: ~held.users[events["user"]]
    if (fewest := built.cleaning.core_users) > 1:
        steps["core of new users"] = lambda e: held.users[e["user"]] | long_runs(fewest, e["user"])
    steps["min_events"] = lambda events: long_runs(built.min_events, events["user"])
    return steps


def _said(step: Dropped, display: Display) -> Dropped:
    display.say(step.line)
    refuse_none_left(step)
    return step


def _fill(writer: StageWriter, parts: Parts, held: _Held) -> None:
    for events in map(parts.load, range(parts.count)):
        users = events["user"][run_starts(events["user"])]
        writer.add(events, int((~held.users[users]).sum()))
