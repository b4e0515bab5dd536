"""`peso evaluate`: a trained stage on the users of its own stage, of the next, or of any."""

from __future__ import annotations

from peso_cli import processes
from peso_cli.commands.output import print_json
from peso_cli.commands.train import USERS, figures_on, say_left_out
from peso_cli.config.compose import Composed
from peso_cli.reports.results import group_table, results_table
from peso_cli.stages import open_run, wanted_stages
from peso_cli.terminal import OUT, TerminalDisplay, warn


def evaluate(composed: Composed, as_json: bool) -> None:
    """Print the figures of the stages asked for by the protocol that `evaluation=` names, working out what isn't known.

    Raises:
        InputError: a stage isn't trained or isn't there, or the protocol has nobody to score it on.
        RunError: an artifact is damaged.
    """
    from peso_cli.evaluation import figures
    from peso_cli.evaluation.audiences import audiences

    run = open_run(composed)
    stages = wanted_stages(composed.config.stage, run.dataset)
    asked = {stage: users for stage, users in audiences(run, stages, warn).items() if users.on}
    method = composed.config.method.name
    with TerminalDisplay() as display, processes.joined(composed.config.device):
        found = {s: figures.evaluate(run, s, users.on, users.split, display) for s, users in asked.items()}
    if as_json:
        documents = [{"folder": str(run.artifact(s).folder), "method": method, **found[s]} for s in found]
        print_json(documents[0] if len(stages) == 1 else documents)
        return
    for stage, users in asked.items():
        on = figures_on(found[stage], users)
        OUT.print(results_table(f"{method} after stage {stage}, {USERS[users.split]} by stage", method, on))
        OUT.print(group_table(method, figures_on(found[stage], users, "groups")))
        say_left_out(on)
