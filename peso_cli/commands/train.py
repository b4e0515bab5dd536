"""`peso train`: bring the stages asked for into being and show their figures."""

from __future__ import annotations

from typing import Any

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.reports.results import results_table
from peso_cli.stages import Run, ensure, open_run, wanted_stages
from peso_cli.terminal import OUT, TerminalDisplay


def train(composed: Composed, as_json: bool) -> None:
    """Train what is missing, then print the results and where everything lies.

    Raises:
        InputError: the settings or the data are wrong.
        RunError: training failed or an artifact is damaged.
    """
    from peso_cli.evaluation.figures import evaluate

    run = open_run(composed)
    stages = wanted_stages(composed.config.stage, run.dataset)
    check_evaluation(run)
    with TerminalDisplay() as display:
        ensure(run, stages, display)
        chosen = composed.config.evaluation
        # Ancestors have been scored on their own users on their way; showing them tells how the method got here.
        shown = tuple(range(1, max(stages) + 1)) if chosen.on is None else stages
        results = {s: evaluate(run, s, chosen.on or (s,), chosen.split, display) for s in shown}
    if as_json:
        print_json({"stages": {str(s): _document(run, s, results[s]) for s in stages}})
        return
    method, split = composed.config.method.name, chosen.split
    if chosen.on is None:
        own = {s: results[s]["evaluated"][str(s)][split] for s in shown}
        OUT.print(results_table(f"{run.dataset.name}, {split} users of each stage", method, own))
    else:
        for s in stages:
            on = {o: results[s]["evaluated"][str(o)][split] for o in chosen.on}
            OUT.print(results_table(f"{method} after stage {s}, {split} users of stages {list(on)}", method, on))
    _explain(results, stages)
    for s in stages:
        OUT.print(f"stage {s}: {run.artifact(s).folder}", markup=False)


def check_evaluation(run: Run) -> None:
    """Check, before any work, that the figures asked for can be worked out.

    Raises:
        InputError: a stage to be scored on isn't there, or the beam or the catalog is too small.
    """
    from peso_cli.evaluation.protocol import check_beams

    config = run.config
    for stage in config.evaluation.on or ():
        run.dataset.block(stage)
    for stage in (1, *(config.evaluation.on or ())):
        check_beams(config.decoding, run.dataset.catalog_at(stage), config.decoding.top_k)


def _explain(results: dict[int, dict[str, Any]], stages: tuple[int, ...]) -> None:
    """Say what training did, and whether the regularizer did anything."""
    for stage in stages:
        training = results[stage].get("training")
        if not training:
            continue
        last = training["history"][-1]
        line = f"stage {stage}: best of {training['epochs']} epochs was {training['best_epoch']}"
        line += f" (validation cross-entropy {training['best_validation_loss']:.4f})"
        if "penalty" in last:
            line += f"; penalty {last['penalty']:.3g}, {last['penalty_share']:.2%} of the loss"
            line += f", its gradient {last['penalty_gradient_ratio']:.2g} times the cross-entropy's"
        OUT.print(line, markup=False)


def _document(run: Run, stage: int, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"folder": str(run.artifact(stage).folder), **metrics}
