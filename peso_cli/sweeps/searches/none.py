"""No search: the plain grid."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.config.types import STRICT


@dataclass(frozen=True, config=STRICT)
class NoSearch:
    """Every combination of the values given is a run."""

    name: Literal["none"]
