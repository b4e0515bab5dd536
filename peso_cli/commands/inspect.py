"""`peso inspect`: how a stage's adapter moved, and whether it followed the data where they speak."""

from __future__ import annotations

from pathlib import Path

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.errors import InputError
from peso_cli.files import write_json
from peso_cli.stages import open_run, wanted_stages
from peso_cli.terminal import OUT, TerminalDisplay

_FOLDER = "inspect"
"""Where in an artifact an inspection lies unless a folder is named; no part of what the artifact promises."""


def inspect(composed: Composed, examples: int, directions: int, output: Path | None, as_json: bool) -> None:
    """Inspect a finished stage; write inspect.json and pictures, and print tables.

    Args:
        composed: says which stage of what.
        examples: most training examples on which data support is taken.
        directions: how many directions of strongest support.
        output: the folder to write to; None for a folder in the artifact.
        as_json: print the document instead of tables.

    Raises:
        InputError: the stage isn't trained or its adapter has no LoRA factors, or the folder is a file.
        RunError: an artifact is damaged.
    """
    run = open_run(composed)
    stages = wanted_stages(composed.config.stage, run.dataset)
    if len(stages) > 1:
        raise InputError(f"stage={list(stages)}: inspect takes one stage")
    folder = output or run.artifact(stages[0]).folder / _FOLDER
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder}: is a file; give a folder")
    run.require(stages[0])
    from peso_cli.inspection.document import inspect_stage
    from peso_cli.inspection.pictures import write_pictures
    from peso_cli.inspection.report import report

    with TerminalDisplay() as display:
        found = inspect_stage(run, stages[0], examples, directions, display.bar("data support"))
    # The document comes last: where it is, the pictures that it names are.
    document = {**found, "pictures": write_pictures(found, folder)}
    write_json(folder / "inspect.json", document)
    if as_json:
        print_json(document)
        return
    for part in report(document):
        OUT.print(part, markup=False) if isinstance(part, str) else OUT.print(part)
    OUT.print(f"{folder}: inspect.json, {', '.join(document['pictures'])}", markup=False)
