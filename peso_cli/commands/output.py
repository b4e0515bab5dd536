"""How commands print documents."""

from __future__ import annotations

import sys
from typing import Any

from peso_cli import processes
from peso_cli.characters import json_text


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; of several processes the first one does."""
    if processes.first():
        sys.stdout.write(json_text(document, indent=2) + "\n")
