"""`peso sweep`: many runs from one command; given again, only what is missing."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import compose
from peso_cli.errors import RunError
from peso_cli.sweeps.engine import Launcher, choose_launcher
from peso_cli.sweeps.grid import read_grid, split_words
from peso_cli.sweeps.ledger import STATES, Ledger, State, open_ledger
from peso_cli.sweeps.plan import Plan, make_plan
from peso_cli.sweeps.progress import watching
from peso_cli.sweeps.searches.choose import choose_search
from peso_cli.terminal import OUT, TerminalDisplay


def sweep(words: Sequence[str], config_dir: Path | None, only_plan: bool, as_json: bool) -> None:
    """Carry out the runs of a grid that aren't done, then say how all of them stand.

    Args:
        words: overrides; several values for a key span the grid, `launcher` and `launcher.*` say how it is carried out.
        config_dir: a folder searched before the built-in one.
        only_plan: whether to show the runs and carry out none.
        as_json: whether to print the ledger as JSON.

    Raises:
        InputError: a word is wrong, or the data isn't there.
        RunError: a run failed.
    """
    of_runs, of_sweep = split_words(words)
    launcher = choose_launcher(of_sweep, config_dir)
    if not any(word.startswith("stage=") for word in of_runs):
        of_runs = ["stage=all", *of_runs]
    if chosen := choose_search(of_sweep, config_dir):
        from peso_cli.commands.search import search

        search(of_runs, chosen, config_dir, only_plan, as_json, lambda ledger, on: _carry_out(ledger, launcher, on))
        return
    grid = read_grid(of_runs, config_dir)
    with TerminalDisplay() as display:
        bar = display.bar("planning")
        plan = make_plan(grid, config_dir, lambda done, total: bar(done, total, "points"))
        output = Path(compose(plan.jobs[0].ways[0], config_dir).config.output)
        ledger = open_ledger(output, plan.jobs, config_dir)
        _introduce(plan, ledger, display)
        if not only_plan:
            _carry_out(ledger, launcher, display)
    _show(ledger, as_json)
    if not only_plan:
        _refuse_unfinished(ledger.states(), words)


def _introduce(plan: Plan, ledger: Ledger, display: TerminalDisplay) -> None:
    points = "" if plan.points == len(plan.jobs) else f" ({plan.points} points of the grid)"
    done = sum(state == "done" for state in ledger.states().values())
    display.say(f"{len(plan.jobs)} runs{points}, {done} done already; ledger: {ledger.folder / 'ledger.json'}")
    for key, count in plan.left_out.items():
        display.say(f"{key}: {count} of {plan.points} points have no such setting and go without it")


def _carry_out(ledger: Ledger, launcher: Launcher, display: TerminalDisplay) -> None:
    states = ledger.states()
    names = [job.name for job in ledger.jobs if states[job.name] != "done"]
    bar = display.bar("runs")

    def show(states: Mapping[str, State], words: str) -> None:
        bar(sum(state == "done" for state in states.values()), len(states), words)

    try:
        with watching(ledger, display.say, show):
            launcher.launch(ledger.folder.resolve(), names)
    except KeyboardInterrupt:
        _interrupt(ledger)
        raise
    finally:
        ledger.write()


def _interrupt(ledger: Ledger) -> None:
    """Have the runs that other processes of this machine carry out stop, too; each keeps what it has."""
    for job in ledger.jobs:
        process = ledger.process(job)
        if process not in (None, os.getpid()) and ledger.state(job) == "running":
            os.kill(process, signal.SIGINT)


def _show(ledger: Ledger, as_json: bool) -> None:
    document = ledger.document()
    if as_json:
        print_json(document)
        return
    table = Table(title=str(ledger.folder), title_justify="left")
    for column in ("run", "state", "last stage"):
        table.add_column(column)
    for row in document["runs"]:
        table.add_row(row["run"], row["state"], list(row["fingerprints"])[-1])
    OUT.print(table)
    OUT.print(", ".join(f"{count} {state}" for state, count in document["states"].items() if count))


def _refuse_unfinished(states: Mapping[str, State], words: Sequence[str]) -> None:
    """Raise unless all runs are done."""
    counts = {state: sum(found == state for found in states.values()) for state in STATES}
    if counts["done"] < len(states):
        undone = ", ".join(f"{counts[state]} {state}" for state in STATES[1:] if counts[state])
        raise RunError(
            f"{undone}; when that is mended, the same command does the rest: {shlex.join(['peso', 'sweep', *words])}"
        )
