"""`peso analyse`: where methods differ, from the predictions of finished stages alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from peso_cli.commands.output import check_options, print_tables
from peso_cli.errors import InputError
from peso_cli.reports.analysis import sections as package
from peso_cli.reports.analysis.evidence import Evidence
from peso_cli.reports.joined import by_dataset, joined
from peso_cli.reports.model import Footnote, Table
from peso_cli.reports.rooms import Room, finished
from peso_cli.reports.selection import Group
from peso_cli.terminal import warn

_ROOM = Room(package, "analyse --only", "section")


def section_names() -> tuple[str, ...]:
    """Return the sections that there are: a module each."""
    return _ROOM.names


def analyse(
    output: Path,
    words: list[str],
    format: str,
    baseline: str,
    mix: bool,
    only: Sequence[str] = (),
    config_dir: Path | None = None,
) -> None:
    """Print the sections of what is finished under a folder, methods of all backbones of a dataset side by side.

    Args:
        output: the folder that holds the runs.
        words: filters such as `method=peso,single`.
        format: `terminal`, `markdown`, `latex`, `csv` or `json`.
        baseline: the method with which each is compared where they are many; empty for none.
        mix: whether runs that can't be compared may stand side by side.
        only: some of `section_names()`; all by default.
        config_dir: the user's own config folder that choices may come from.

    Raises:
        InputError: there is no such section, format or folder, a filter is wrong, nothing fits, runs can't be compared,
            or there is nothing to show.
        RunError: predictions are damaged.
    """
    check_options(format, config_dir)
    modules = {name: _ROOM.module(name) for name in only or _ROOM.names}
    made: list[Table] = []
    for group in map(_together, by_dataset(finished(output, words, baseline, mix, warn, config_dir=config_dir))):
        if group.mixed and not mix:
            raise InputError(f"{group.mixed}; choose by a filter (backbone=, method=, ...), or give --mix")
        evidence = Evidence(group)
        for name, module in modules.items():
            try:
                made += module.build(evidence)
            except InputError as error:
                warn(f"left out: {name} of {group.title}: {error}")
    if not made:
        raise InputError(f"analyse: there is nothing to show of {', '.join(modules)}, as said above")
    print_tables(list(_told_once(made)), format)


def _together(groups: Sequence[Group]) -> Group:
    """Return the groups of a dataset as one."""
    if len(groups) == 1:
        return groups[0]
    return joined(groups, [(variant, group.backbone) for group in groups for variant in group.variants])


def _told_once(tables: Iterable[Table]) -> Iterable[Table]:
    """Yield tables; what is missing of runs is told below the first one that lacks it."""
    told: set[Footnote] = set()
    for table in tables:
        yield replace(table, footnotes=tuple(note for note in table.footnotes if note.gap is None or note not in told))
        told |= set(table.footnotes)
