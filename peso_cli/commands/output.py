"""How commands print documents and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peso_cli import processes
from peso_cli.characters import json_text, printable
from peso_cli.errors import InputError, nearest

if TYPE_CHECKING:
    from peso_cli.reports.model import Table


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; of several processes the first one does."""
    if processes.first():
        sys.stdout.write(json_text(document, indent=2) + "\n")


def check_options(format: str, config_dir: Path | None) -> None:
    """Check what commands that print tables are asked for.

    Raises:
        InputError: there is no such format or folder.
    """
    from peso_cli.reports.render import TEXTS

    if format != "terminal" and format not in TEXTS:
        raise InputError(f"--format {format}: give terminal, {', '.join(TEXTS)}{nearest(format, TEXTS)}")
    if config_dir is not None and not config_dir.is_dir():
        raise InputError(f"--config-dir {config_dir}: no such folder")


def print_tables(tables: Sequence[Table], format: str) -> None:
    """Print tables in one of the formats of `check_options`."""
    from peso_cli.reports.render import TEXTS, show
    from peso_cli.terminal import OUT

    if format == "terminal":
        show(tables, OUT)
    else:
        sys.stdout.write(printable(TEXTS[format](tables)))
