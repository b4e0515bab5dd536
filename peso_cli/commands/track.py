"""`peso track sync`: send what runs recorded for W&B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peso_cli.artifacts import Artifact, find_artifacts
from peso_cli.commands.output import print_json
from peso_cli.errors import InputError, RunError
from peso_cli.terminal import OUT, TerminalDisplay
from peso_cli.tracking.sending import Sending, send, standing

_NAMED = 3
"""Runs that the line of complaint names."""


def sync(words: Sequence[str], config_dir: Path | None, patience: float, as_json: bool) -> None:
    """Send finished runs that weren't sent yet, and say what became of each.

    Args:
        words: folders to look in, or overrides that name runs; none: outputs.
        config_dir: a folder searched before the built-in one.
        patience: seconds without another run finished after which the server is given up.
        as_json: whether to print one JSON document.

    Raises:
        InputError: there is no such folder, the overrides are wrong, or there is no API key.
        RunError: runs stay unsent, or W&B's command didn't begin.
    """
    found = standing(_artifacts(words, config_dir))
    with TerminalDisplay() as display:
        found = send(found, patience, display.bar("sending"))
    if as_json:
        print_json({"states": _counts(found), "runs": [_document(sending) for sending in found]})
    else:
        _show(found)
    _complain([sending for sending in found if sending.state == "unsent"], words)


def _artifacts(words: Sequence[str], config_dir: Path | None) -> list[Artifact]:
    overrides = [word for word in words if "=" in word or word.startswith("-")]
    folders = [Path(word) for word in words or ["outputs"] if word not in overrides]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give one that holds runs, or overrides (stage=3 method=peso)")
    found = [artifact for folder in folders for artifact in find_artifacts(folder)]
    return list(dict.fromkeys([*found, *(_named(overrides, config_dir) if overrides else ())]))


def _named(overrides: list[str], config_dir: Path | None) -> list[Artifact]:
    """Return the artifacts of a configuration's stages and of those before them."""
    from peso_cli.config.compose import compose
    from peso_cli.stages import open_run, wanted_stages

    run = open_run(compose(overrides, config_dir))
    return list(run.lineage(max(wanted_stages(run.config.stage, run.dataset))))


def _counts(found: Sequence[Sending]) -> dict[str, int]:
    return dict(Counter(sending.state for sending in found))


def _document(sending: Sending) -> dict[str, Any]:
    run = sending.run
    return {
        "folder": str(run.folder),
        "run": run.id,
        "state": sending.state,
        "url": sending.url,
        "error": sending.error,
    }


def _show(found: Sequence[Sending]) -> None:
    if not found:
        OUT.print("nothing is recorded for W&B here; runs of tracker=wandb are")
        return
    for sending in found:
        more = sending.error or sending.url
        OUT.print(f"{sending.run.folder}: {sending.state}" + (f" ({more})" if more else ""))
    OUT.print(", ".join(f"{count} {state}" for state, count in _counts(found).items()))


def _complain(unsent: Sequence[Sending], words: Sequence[str]) -> None:
    """Raise if runs stay unsent."""
    if not unsent:
        return
    more = len(unsent) - _NAMED
    names = ", ".join(str(sending.run.folder) for sending in unsent[:_NAMED]) + (
        f" and {more} more" if more > 0 else ""
    )
    raise RunError(
        f"W&B: {len(unsent)} {'run stays' if len(unsent) == 1 else 'runs stay'} unsent ({unsent[0].error}): {names}; "
        f"the same command sends what is left: {' '.join(['peso track sync', *words])}"
    )
