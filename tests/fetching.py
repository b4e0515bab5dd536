"""A small resource in place of a real one, and an offline package index that has it."""

from __future__ import annotations

from pathlib import Path

from wheels import write_gguf, write_wheel

from peso_cli.files import sha256
from peso_cli.resources.smollm2 import SmolLM2

PIECES = ("llm_small", "0.1")
MEMBER = "llm_small/small.gguf"


def pinned(gguf: Path) -> SmolLM2:
    """The description of a GGUF file inside a wheel."""
    return SmolLM2("a small model", "llm-small==0.1", 90_000, MEMBER, sha256(gguf), "someone/small")


def small_index(folder: Path) -> SmolLM2:
    """Write a package index of one wheel into a folder; return the description of the model in it."""
    folder.mkdir()
    write_gguf(folder / "small.gguf")
    write_wheel(folder, *PIECES, {MEMBER: folder / "small.gguf"})
    return pinned(folder / "small.gguf")
