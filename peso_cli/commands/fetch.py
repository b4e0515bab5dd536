"""`peso fetch`: bring a named resource into the cache, or show what can be fetched and what is there."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.errors import RunError
from peso_cli.resources.cache import Fetched, cache_folder, find, store
from peso_cli.resources.registry import RESOURCES, known_resource
from peso_cli.terminal import OUT, TerminalDisplay


def fetch(name: str, force: bool, as_json: bool) -> None:
    """Bring a resource into the cache; one that is there already is checked against its checksums.

    Raises:
        InputError: there is no such resource.
        RunError: it can't be had, or what is there is damaged.
    """
    resource = known_resource(name)
    fetched = None if force else find(name)
    did = "fetched" if fetched is None else "is there already, checksums are right"
    if fetched is not None:
        fetched.verify()
    else:
        with TerminalDisplay() as display:
            try:
                fetched = store(name, lambda folder, scratch: resource.bring(folder, scratch, display), force)
            except RunError as error:
                raise RunError(f"{name}: {error}") from None
    if as_json:
        print_json(_document(fetched))
        return
    OUT.print(f"{name}: {did} ({_megabytes(fetched)} from {fetched.origin}): {fetched.folder}", markup=False)


def show_resources(as_json: bool) -> None:
    """Print what can be fetched and what is there.

    Raises:
        RunError: the manifest of something that is there is damaged.
    """
    found = {name: find(name) for name in RESOURCES}
    if as_json:
        print_json({name: fetched and _document(fetched) for name, fetched in found.items()})
        return
    table = Table(title=str(cache_folder()), title_justify="left")
    for column in ("name", "what it is", "there"):
        table.add_column(column)
    for name, fetched in found.items():
        there = f"{_megabytes(fetched)} from {fetched.origin}" if fetched else f"no; run: peso fetch {name}"
        table.add_row(name, RESOURCES[name].about, there)
    OUT.print(table)


def _document(fetched: Fetched) -> dict[str, Any]:
    return {"folder": str(fetched.folder), **fetched.manifest}


def _megabytes(fetched: Fetched) -> str:
    return f"{fetched.size / 10**6:,.0f} MB"
