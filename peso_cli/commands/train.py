"""`peso train`: bring the stages asked for into being and show their figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peso_cli import processes
from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.learners import Measures, measures_of
from peso_cli.repair import repair as move_damaged_aside
from peso_cli.reports.results import results_table
from peso_cli.stages import Run, ensure, open_run, wanted_stages
from peso_cli.terminal import OUT, TerminalDisplay, warn

if TYPE_CHECKING:
    from peso_cli.evaluation.protocol import Audience

USERS = {"test": "test users", "valid": "valid users", "next": "first events of users"}
"""Who is scored by a split, in words."""


def train(composed: Composed, as_json: bool, repair: bool = False) -> None:
    """Train what is missing, then print the results and where everything lies.

    Args:
        composed: the configuration.
        as_json: whether to print one JSON document.
        repair: whether to move damaged stages aside and train them anew.

    Raises:
        InputError: the settings or the data are wrong.
        RunError: training failed or an artifact is damaged.
    """
    from peso_cli.evaluation.audiences import audiences
    from peso_cli.evaluation.figures import evaluate

    run = open_run(composed)
    stages = wanted_stages(composed.config.stage, run.dataset)
    chosen = composed.config.evaluation
    own = chosen.protocol == "in_stage" and chosen.on is None
    # Ancestors have been scored on their own users on their way; showing them tells how the method got here.
    asked = audiences(run, range(1, max(stages) + 1) if own else stages, warn)
    with TerminalDisplay() as display, processes.joined(composed.config.device):
        if repair and processes.first():
            move_damaged_aside(run, max(stages), display)
        processes.wait()
        ensure(run, stages, display)
        results = {s: evaluate(run, s, users.on, users.split, display) for s, users in asked.items()}
    if as_json:
        print_json({"stages": {str(s): _document(run, s, results[s]) for s in stages}})
        return
    if own:
        figures = {s: results[s]["evaluated"][str(s)][chosen.split] for s in results}
        title = f"{run.dataset.name}, {USERS[chosen.split]} of each stage"
        OUT.print(results_table(title, composed.config.method.name, figures))
    else:
        _show(composed.config.method.name, asked, results)
    _explain(results, stages, measures_of(composed.config))
    for s in stages:
        OUT.print(f"stage {s}: {run.artifact(s).folder}", markup=False)


def figures_on(metrics: Mapping[str, Any], users: Audience, kind: str = "evaluated") -> dict[int, Any]:
    """Return what a stage's metrics hold of an audience, by stage: figures, or with `groups` those by user group."""
    return {stage: metrics[kind][str(stage)][users.split] for stage in users.on}


def say_left_out(figures: Mapping[int, Mapping[str, Any]]) -> None:
    """Say how many users of which stages there was nothing to ask by."""
    for stage, summary in figures.items():
        if left_out := summary.get("left_out"):
            OUT.print(f"stage {stage}: {left_out:,} users have no event before it and are left out", markup=False)


def _show(method: str, asked: Mapping[int, Audience], results: Mapping[int, Mapping[str, Any]]) -> None:
    """Print a table for each stage that was scored on the users of others."""
    for stage, users in asked.items():
        if users.on:
            on = figures_on(results[stage], users)
            title = f"{method} after stage {stage}, {USERS[users.split]} of stages {list(on)}"
            OUT.print(results_table(title, method, on))
            say_left_out(on)


def _explain(results: dict[int, dict[str, Any]], stages: tuple[int, ...], measures: Measures) -> None:
    """Say what training did, and whether the regularizer did anything."""
    for stage in stages:
        training = results[stage].get("training")
        if not training:
            continue
        last = training["history"][-1]
        line = f"stage {stage}: best of {training['epochs']} epochs was {training['best_epoch']}"
        line += f" (validation {measures.validation} {training['best_validation_loss']:.4f})"
        if "penalty" in last:
            line += f"; penalty {last['penalty']:.3g}, {last['penalty_share']:.2%} of the loss"
            line += f", its gradient {last['penalty_gradient_ratio']:.2g} times the {measures.training}'s"
        OUT.print(line, markup=False)


def _document(run: Run, stage: int, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"folder": str(run.artifact(stage).folder), **metrics}
