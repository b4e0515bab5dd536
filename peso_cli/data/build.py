"""From raw interactions to the folder of a built dataset, in memory that doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from peso_cli.data.cleaning import Dropped, Left, refuse_none_left, rules_of, sort_parts, to_core
from peso_cli.data.event_files import Events, Parts, into_parts, long_runs, run_starts
from peso_cli.data.intake import Intake, take_in
from peso_cli.data.layout import FORMAT, MANIFEST, StageFolder, stage_folders
from peso_cli.data.provenance import Settings, differences, inputs_of, settings_of
from peso_cli.data.raw import Cleaning, RawDataset, Split
from peso_cli.data.reading import read_object
from peso_cli.data.sources.frames import Raw
from peso_cli.data.splitting import check_split, cut_points, moments_of, refuse_empty, stages_of
from peso_cli.data.stage_files import StageFigures, StageWriter, read_figures, write_texts
from peso_cli.data.temporary import move_into_place, temporary_beside
from peso_cli.errors import InputError
from peso_cli.files import write_json

if TYPE_CHECKING:
    from peso_cli.stages import Display

PART = 1_000_000
"""Events that are held at once, about."""


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        root: the dataset's folder.
        stages: what each stage holds, appended ones included.
        dropped: what each step dropped.
        reused: whether the dataset was there already.
    """

    root: str
    stages: tuple[StageFigures, ...]
    dropped: tuple[Dropped, ...]
    reused: bool


def build(dataset: RawDataset, cleaning: Cleaning, split: Split, raw: Raw, display: Display) -> BuildReport:
    """Make the stages of a dataset, or find that they are there.

    Every step is settled by what the interactions are, not by how many threads work or in which order events of one
    moment come; only the order within such a moment is that of the logs.

    Args:
        dataset: where the folder is to lie, and what it is made of.
        cleaning: which interactions count.
        split: how they fall into stages.
        raw: the tables of the dataset's source.
        display: shows progress and what each step drops.

    Raises:
        InputError: something else lies in the folder; rows can't be read; a step leaves nothing; a stage is empty.
        RunError: the folder came into being meanwhile.
    """
    check_split(split)
    root, settings = Path(dataset.path), settings_of(dataset, cleaning, split)
    inputs = inputs_of([*dataset.interactions, *dataset.items])
    if (root / MANIFEST).is_file():
        return _reuse(root, settings, inputs, display)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"dataset.path={root}: holds something else than a dataset; choose another dataset.path")
    with temporary_beside(root) as folder:
        made = folder / "dataset"
        stages, dropped, cuts = _make(made, folder, cleaning, split, raw, display)
        document = {"format": FORMAT, "name": dataset.name, "stages": len(stages), "cuts": cuts}
        steps = [asdict(step) for step in dropped]
        write_json(made / MANIFEST, {**document, "settings": settings, "inputs": inputs, "dropped": steps})
        move_into_place(made, root)
    return BuildReport(str(root), stages, dropped, reused=False)


def _reuse(root: Path, settings: Settings, inputs: dict[str, Any], display: Display) -> BuildReport:
    """Report on a dataset that is there, if it is the one that is asked for."""
    document = read_object(root / MANIFEST)
    if document.get("format") != FORMAT:
        raise InputError(f"{root / MANIFEST}: isn't of format {FORMAT}; choose another dataset.name or dataset.path")
    before = {**document["settings"], "inputs": document["inputs"]}
    if found := list(differences(before, {**settings, "inputs": inputs})):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"{root}: was built with {found[0]}{more}; choose another dataset.name or dataset.path")
    stages = tuple(map(read_figures, stage_folders(root)))
    if len(stages) < document["stages"]:
        raise InputError(f"{root}: stage {len(stages) + 1} is missing; remove the folder and build it again")
    display.say(f"{root}: was built with the same settings from the same inputs; it is taken as it is")
    return BuildReport(str(root), stages, tuple(Dropped(**step) for step in document["dropped"]), reused=True)


def _make(
    root: Path, folder: Path, cleaning: Cleaning, split: Split, raw: Raw, display: Display
) -> tuple[tuple[StageFigures, ...], tuple[Dropped, ...], list[int]]:
    """Fill `root` with stages, with temporary files in `folder`; return their figures, the steps and the cuts."""
    intake = take_in(raw.events, rules_of(cleaning), cleaning.time_unit, folder / "log", display)
    users, items, parts = partition(intake, folder, display)
    cleaned = _clean(parts, cleaning, display)
    cuts = cut_points(split, moments_of(split, parts))
    writers = [StageWriter(StageFolder(root, stage), users, items) for stage in range(1, len(cuts) + 2)]
    last = _fill(writers, parts, split, cuts, display)
    return (
        _finish(writers, items, raw.items, folder / "texts.parquet", display),
        (*intake.dropped, *cleaned, last),
        cuts,
    )


def partition(intake: Intake, folder: Path, display: Display) -> tuple[pl.Series, pl.Series, Parts]:
    """Number users and items in the order of their ids, and bring each user's events together.

    Returns:
        The users' ids, the items' ids, and the events with the places there as their numbers.
    """
    (users, user_places), (items, item_places) = intake.users.in_order(), intake.items.in_order()
    parts = into_parts(intake.spool, folder / "parts", user_places, item_places, PART, display.bar("ordering"))
    intake.spool.unlink()
    return users, items, parts


def _clean(parts: Parts, cleaning: Cleaning, display: Display) -> tuple[Dropped, ...]:
    """Drop what comes again and what isn't in the core, and say so."""
    steps = [sort_parts(parts, cleaning.duplicates, display.bar("duplicates"))]
    display.say(steps[-1].line)
    if max(cleaning.core_users, cleaning.core_items) > 1:
        steps.append(to_core(parts, cleaning.core_users, cleaning.core_items, display.bar("core")))
        display.say(steps[-1].line)
        refuse_none_left(steps[-1])
    return tuple(steps)


def _fill(writers: Sequence[StageWriter], parts: Parts, split: Split, cuts: list[int], display: Display) -> Dropped:
    """Hand each event to its stage's writer, but for those of users with too few events in the stage."""
    left, counts, tick = Left(), np.zeros((2, len(writers)), dtype=np.int64), display.bar("writing stages")
    for part in range(parts.count):
        events = parts.load(part)
        stages = stages_of(split, cuts, events)
        keep = long_runs(split.min_events, events["user"], stages)
        kept, of_kept = events[keep], stages[keep]
        newcomers = _first_stages(kept, of_kept)
        for stage, writer in enumerate(writers, start=1):
            writer.add(kept[of_kept == stage], int((newcomers == stage).sum()))
        left.add(kept["user"], kept["item"])
        counts += [np.bincount(some - 1, minlength=len(writers)) for some in (stages, of_kept)]
        tick(part + 1, parts.count, "")
    refuse_empty(cuts, counts[0], counts[1], split.min_events)
    dropped = left.since("min_events", int(counts[0].sum()))
    display.say(dropped.line)
    return dropped


def _first_stages(events: Events, stages: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (users,) the first stage of each user among events in time order."""
    return stages[run_starts(events["user"])]


def _finish(
    writers: Sequence[StageWriter], items: pl.Series, source: pl.LazyFrame, texts: Path, display: Display
) -> tuple[StageFigures, ...]:
    """Give each stage the items that no earlier one has, and its manifest."""
    known, fresh = np.zeros(len(items), dtype=bool), []
    for writer in writers:
        seen = writer.close()
        fresh.append(items.gather(pl.Series(seen[~known[seen]])))
        known[seen] = True
    write_texts(texts, source, fresh)
    figures = [writer.finish(new, texts, "build") for writer, new in zip(writers, fresh, strict=True)]
    for stage in figures:
        display.say(stage.line)
    return tuple(figures)
