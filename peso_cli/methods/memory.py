"""Memories: which data a stage trains on.

A memory is a frozen dataclass that its YAML fills in; it names the stages whose training examples a stage sees.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")


class Memory(Protocol):
    """What a stage needs of a memory."""

    @property
    def name(self) -> str:
        """The name by which a config chooses it."""

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return the stages whose training examples `stage` trains on."""


@dataclass(frozen=True, config=_STRICT)
class Current:
    """Only the stage's own data."""

    name: Literal["current"] = "current"

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return the stage itself."""
        return (stage,)


@dataclass(frozen=True, config=_STRICT)
class All:
    """The data of every stage so far."""

    name: Literal["all"] = "all"

    def stages(self, stage: int) -> tuple[int, ...]:
        """Return all stages up to this one."""
        return tuple(range(1, stage + 1))


MemoryPart = Annotated[Current | All, Field(discriminator="name")]
"""The memories a config can choose; a new one is added here."""
