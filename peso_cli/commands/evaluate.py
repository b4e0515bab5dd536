"""`peso evaluate`: a trained stage on any stage's users."""

from __future__ import annotations

from peso_cli.commands.output import print_json
from peso_cli.commands.train import check_evaluation
from peso_cli.config.compose import Composed
from peso_cli.reports.results import group_table, results_table
from peso_cli.stages import open_run, wanted_stages
from peso_cli.terminal import OUT, TerminalDisplay


def evaluate(composed: Composed, as_json: bool) -> None:
    """Print the figures of the stages asked for on the users of `evaluation.on`, working out those not known yet.

    Raises:
        InputError: a stage isn't trained or isn't there.
        RunError: an artifact is damaged.
    """
    from peso_cli.evaluation import figures

    run = open_run(composed)
    stages = wanted_stages(composed.config.stage, run.dataset)
    check_evaluation(run)
    chosen, method = composed.config.evaluation, composed.config.method.name
    with TerminalDisplay() as display:
        found = {s: figures.evaluate(run, s, chosen.on or (s,), chosen.split, display) for s in stages}
    if as_json:
        documents = [{"folder": str(run.artifact(s).folder), "method": method, **found[s]} for s in stages]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    for stage, metrics in found.items():
        on = {s: metrics["evaluated"][str(s)][chosen.split] for s in chosen.on or (stage,)}
        groups = {s: metrics["groups"][str(s)][chosen.split] for s in on}
        OUT.print(results_table(f"{method} after stage {stage}, {chosen.split} users by stage", method, on))
        OUT.print(group_table(method, groups))
