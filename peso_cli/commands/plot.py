"""`peso plot`: pictures of many runs, made from finished artifacts alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from peso_cli.characters import printable
from peso_cli.errors import InputError, nearest
from peso_cli.files import write_atomically
from peso_cli.reports import plots as package
from peso_cli.reports.averages import unfilled
from peso_cli.reports.look import METADATA, Picture
from peso_cli.reports.rooms import Room, finished
from peso_cli.reports.selection import Group
from peso_cli.terminal import warn

_ROOM = Room(package, "plot", "plot")


def plot_names() -> tuple[str, ...]:
    """Return the plots that there are: a module each."""
    return _ROOM.names


def plot(
    name: str,
    output: Path,
    words: list[str],
    to: Path,
    formats: tuple[str, ...],
    baseline: str,
    mix: bool,
    chosen: bool = False,
) -> None:
    """Draw a plot of what is finished under a folder, and print the files' paths.

    Equal runs give equal files. What is missing is named on standard error.

    Args:
        name: one of `plot_names()`.
        output: the folder that holds the runs.
        words: filters such as `method=peso,single`.
        to: the folder that pictures go to.
        formats: `svg`, `png` or both.
        baseline: the row that others are compared with; empty for none.
        mix: whether runs that can't be compared may stand in one picture.
        chosen: whether, of variants that differ only in their strength, only the one chosen on validation stays.

    Raises:
        InputError: there is no such plot or format, a filter is wrong, nothing fits, runs can't be compared, or figures
            that a choice rests on are missing.
    """
    for form in formats:
        if form not in METADATA:
            raise InputError(f"format {form}: give {' or '.join(METADATA)}{nearest(form, METADATA)}")
    module = _ROOM.module(name)
    groups = finished(output, words, baseline, mix, warn, chosen)
    pictures: list[Picture] = _ROOM.something(name, [picture for group in groups for picture in module.draw(group)])
    for note in (*(note for group in groups for note in _notes(group)), *(n for p in pictures for n in p.notes)):
        warn(note)
    for path in _write(name, pictures, to, formats):
        sys.stdout.write(printable(f"{path}\n"))


def _write(name: str, pictures: list[Picture], to: Path, formats: tuple[str, ...]) -> Iterator[Path]:
    """Write NAME, NAME-2, ... in each format and yield the paths."""
    for number, picture in enumerate(pictures, start=1):
        for form in formats:
            path = to / f"{name}{f'-{number}' * (number > 1)}.{form}"
            write_atomically(path, partial(picture.save, form=form))
            yield path


def _notes(group: Group) -> Iterator[str]:
    """Yield what is to be known of a group's pictures: what can't be compared, was chosen, and is missing."""
    yield from group.notes
    if group.mixed:
        yield f"figures that can't be compared stand side by side: {group.mixed}"
    for method in group.absent:
        yield f"missing: {method}, nothing is finished"
    for note in unfilled(group, group.variants):
        yield f"{note.text}: {note.command}"
