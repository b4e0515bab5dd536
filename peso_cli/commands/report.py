"""`peso report`: finished runs as one page that people can look at anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

from peso_cli.characters import printable
from peso_cli.commands.explain import explain
from peso_cli.errors import InputError
from peso_cli.files import write_text
from peso_cli.reports.rooms import finished
from peso_cli.terminal import TerminalDisplay, warn

OUTPUT = Path("outputs")
"""Where runs are by themselves."""


def report(
    output: Path, filters: list[str], to: Path, baseline: str, mix: bool, chosen: bool = False, why: bool = False
) -> None:
    """Write a page of what is finished under a folder, and print its path.

    Equal runs give equal bytes. The file is there as a whole or not at all.

    Args:
        output: the folder that holds the runs.
        filters: such as `method=peso,single`.
        to: the file to write.
        baseline: the row that others are compared with; empty for none.
        mix: whether runs that can't be compared may stand side by side.
        chosen: whether, of variants that differ only in their strength, only the one chosen on validation stays.
        why: whether models are asked which items of the histories carried the sample recommendations.

    Raises:
        InputError: a filter is wrong, nothing fits, runs can't be compared, or `to` is a folder.
    """
    from peso_cli.reports.page.document import document

    if to.is_dir():
        raise InputError(f"--to {to}: is a folder; give a file, such as {to / 'report.html'}")
    left_out: list[str] = []
    groups = finished(output, filters, baseline, mix, left_out.append, chosen)
    for line in left_out:
        warn(line)
    request = _request(output, filters, baseline, mix)
    with TerminalDisplay() as display:
        write_text(to, document(groups, request, left_out, warn, display.bar("page"), explain if why else None))
    sys.stdout.write(printable(f"{to}\n"))


def _request(output: Path, filters: list[str], baseline: str, mix: bool) -> list[str]:
    """Return the words with which other commands choose the same runs."""
    where = [] if output == OUTPUT else ["--output", str(output)]
    return [*filters, *where, *(["--baseline", baseline] if baseline != "single" else []), *(["--mix"] if mix else [])]
