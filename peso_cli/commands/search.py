"""`peso sweep search=...`: trials instead of a grid, and what is chosen among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.fingerprint import digest
from peso_cli.errors import RunError
from peso_cli.evaluation.audiences import audiences
from peso_cli.files import write_json
from peso_cli.stages import Display
from peso_cli.sweeps.ledger import FOLDER, FORMAT, Ledger, open_ledger
from peso_cli.sweeps.plan import Job
from peso_cli.sweeps.searches.optuna import Optuna
from peso_cli.sweeps.searches.outcome import outcome
from peso_cli.sweeps.searches.space import read_space
from peso_cli.sweeps.searches.study import explore, find_study, open_record, open_study
from peso_cli.sweeps.searches.trials import Arena, Trials, short
from peso_cli.terminal import OUT, TerminalDisplay

CarryOut = Callable[[Ledger, TerminalDisplay], None]
"""Carries out the runs of a ledger that aren't done."""


@dataclass(frozen=True)
class _Search:
    """A search over all its datasets.

    Attributes:
        search: how values are found.
        arenas: its part for each dataset.
        output: the folder of all runs.
    """

    search: Optuna
    arenas: Sequence[Arena]
    output: Path

    @cached_property
    def folder(self) -> Path:
        """Where it is kept, named after all that shapes its trials, so that the same search is found again."""
        space = self.arenas[0].space.identity
        parts = [self.search.identity, space, [[arena.name, arena.identity] for arena in self.arenas]]
        return self.output / FOLDER / digest(parts)[:8]

    @property
    def record(self) -> Path:
        """Optuna's journal."""
        return self.folder / "study.log"

    def document(self, display: Display) -> dict[str, Any]:
        """Return what search.json says: what the record holds, and what is chosen."""
        return {
            "format": FORMAT,
            "folder": str(self.folder),
            "objectives": list(self.search.objectives),
            "trials": self.search.trials,
            "seeds": list(self.arenas[0].seeds),
            "searches": [
                outcome(arena, self.search, find_study(self.record, arena.name), display) for arena in self.arenas
            ],
        }


def search(
    words: Sequence[str], chosen: Optuna, config_dir: Path | None, only_plan: bool, as_json: bool, carry_out: CarryOut
) -> None:
    """Carry on a search until it has all its trials, then show them and what is chosen.

    Args:
        words: overrides; several values and intervals span the space.
        chosen: how values are found.
        config_dir: a folder searched before the built-in one.
        only_plan: whether to show the trials that have ended and carry out none.
        as_json: whether to print search.json.
        carry_out: carries out runs.

    Raises:
        InputError: a word is wrong, or the data isn't there.
        RunError: a trial failed or was cut off, or none came to its end.
    """
    space = read_space(words, config_dir)
    arenas = [Arena(space, data, config_dir) for data in space.datasets]
    with TerminalDisplay() as display:
        for arena in arenas:
            arena.check(chosen.figures)
            audiences(arena.corner, arena.stages, display.say)
        whole = _Search(chosen, arenas, Path(arenas[0].corner.config.output))
        display.say(f"{chosen.trials} trials of each dataset; search: {whole.folder / 'search.json'}")
        document = whole.document(display) if only_plan else _carry_out(whole, display, carry_out)
    _show(document, chosen, as_json)
    if not only_plan and not all(found["chosen"] for found in document["searches"]):
        raise RunError("no trial came to its end, so that there is nothing to choose")


def _carry_out(whole: _Search, display: TerminalDisplay, carry_out: CarryOut) -> dict[str, Any]:
    search = whole.search
    with open_record(
        whole.record, lambda: display.say("waiting for another process that carries on this search")
    ) as kept:
        for arena in whole.arenas:
            study = open_study(kept, arena.name, search)
            launch = partial(_launch, whole.folder, arena.config_dir, carry_out, display)
            display.say(f"{arena.name}: {len(study.trials)} trials have ended")
            measure = Trials(arena, search.figures, search.skip_failed, launch)
            explore(study, search, arena.space.axes, arena.stages, measure)
        document = whole.document(display)
        write_json(whole.folder / "search.json", document)
    return document


def _launch(
    folder: Path, config_dir: Path | None, carry_out: CarryOut, display: TerminalDisplay, jobs: Sequence[Job]
) -> Ledger:
    """Carry out runs as a sweep of its own within the search's folder."""
    ledger = open_ledger(folder, jobs, config_dir)
    if any(state != "done" for state in ledger.states().values()):
        carry_out(ledger, display)
    return ledger


def _show(document: dict[str, Any], search: Optuna, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    for found in document["searches"]:
        OUT.print(_table(found, search))
        for trial in found["chosen"]:
            _say_chosen(found, trial)


def _table(found: dict[str, Any], search: Optuna) -> Table:
    chosen = {trial["number"] for trial in found["chosen"]}
    keys = list(found["trials"][0]["values"]) if found["trials"] else []
    title = f"{found['dataset']}: trials, by validation users of stages {', '.join(map(str, found['stages']))}"
    table = Table(title=title, title_justify="left")
    for column in ("trial", *keys, *search.objectives, "state", "chosen"):
        table.add_column(column, overflow="fold")
    for trial in found["trials"]:
        values = [short(trial["values"][key]) for key in keys]
        figures = [f"{trial['validation'][name]:.4f}" if name in trial["validation"] else "" for name in search.figures]
        mark = "chosen" if trial["number"] in chosen else ""
        table.add_row(str(trial["number"]), *values, *figures, trial["state"], mark)
    return table


def _say_chosen(found: dict[str, Any], trial: dict[str, Any]) -> None:
    values = " ".join(f"{key}={short(value)}" for key, value in trial["values"].items())
    figures = {name: value for name, value in trial["test"].items() if "item" not in name}
    test = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    OUT.print(f"{found['dataset']}: trial {trial['number']} chosen on validation: {values}", markup=False)
    OUT.print(f"  its test users, which the choice doesn't rest on: {test}", markup=False)
    OUT.print(f"  {trial['command']}", markup=False)
