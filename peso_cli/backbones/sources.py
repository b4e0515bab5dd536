"""Where the files of a pretrained model or tokenizer lie, and the digest of what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from peso_cli.config.schema import ConfigBackbone, PretrainedBackbone
from peso_cli.errors import InputError, nearest
from peso_cli.files import sha256
from peso_cli.hybrid.settings import Hybrid
from peso_cli.resources.cache import MANIFEST, Fetched, find
from peso_cli.resources.hub import hub_answers, hub_reason
from peso_cli.resources.registry import RESOURCES
from peso_cli.two_tower.settings import TwoTower

Backbone = ConfigBackbone | PretrainedBackbone | TwoTower | Hybrid

_WEIGHTS = ".safetensors"
_KINDS = (".json", ".model", ".txt", _WEIGHTS)
"""Endings of the files that models and tokenizers are read from."""


@dataclass(frozen=True)
class Source:
    """What a backbone starts from. Names of resources are reserved; then come folders, then models of the hub.

    Attributes:
        key: the setting that names it: `model` (all its files) or `tokenizer` (all but the weights).
        name: the setting's value.
        revision: a commit or tag of the hub's repository.
    """

    key: Literal["model", "tokenizer"]
    name: str
    revision: str | None

    def __str__(self) -> str:
        return f"backbone.{self.key}={self.name}"

    def digest(self) -> str | None:
        """Return a digest of the files: by the manifest of what was fetched, by content for a folder, None on the hub.

        Raises:
            InputError: the resource isn't fetched yet.
            RunError: its manifest is damaged.
        """
        fetched, folder = self._fetched(), Path(self.name)
        if fetched is not None:
            return _listing_digest({file: fetched.files[file] for file in filter(self._wanted, fetched.files)})
        if not folder.is_dir():
            return None
        files = [path for path in folder.iterdir() if self._wanted(path.name) and path.is_file()]
        return _listing_digest({path.name: _sha256(path) for path in files})

    def folder(self) -> str:
        """Return the folder with the files, brought from the hub if need be: neither pickled weights nor code.

        Raises:
            InputError: the files can't be had.
            RunError: those that were fetched have changed since.
        """
        fetched = self._fetched()
        if fetched is not None:
            fetched.verify(filter(self._wanted, fetched.files))
            return str(fetched.folder)
        return self.name if Path(self.name).is_dir() else self._from_hub()

    def _wanted(self, file: str) -> bool:
        return file.endswith(_KINDS) and file != MANIFEST and (self.key == "model" or not file.endswith(_WEIGHTS))

    def _fetched(self) -> Fetched | None:
        if self.name not in RESOURCES:
            return None
        fetched = find(self.name)
        if fetched is None:
            raise InputError(f"{self}: isn't fetched yet; run: peso fetch {self.name}")
        return fetched

    def _from_hub(self) -> str:
        import huggingface_hub

        online = hub_answers()
        kinds = [f"*{kind}" for kind in _KINDS if self._wanted(kind)]
        try:
            return huggingface_hub.snapshot_download(
                self.name, revision=self.revision, allow_patterns=kinds, local_files_only=not online
            )
        except Exception as error:  # of the network, the disk, the hub, or the name
            why = f"the hub says: {hub_reason(error)}" if online else "it isn't cached and the hub can't be reached"
            raise InputError(f"{self}: there is no such folder{nearest(self.name, RESOURCES)}, and {why}") from None


def source_of(config: Backbone) -> Source | None:
    """Return what a backbone starts from; None for one that is made from numbers alone."""
    if isinstance(config, PretrainedBackbone):
        return Source("model", config.model, config.revision)
    if isinstance(config, TwoTower | Hybrid) or config.tokenizer is None:
        return None
    return Source("tokenizer", config.tokenizer, None)


def contents(config: Backbone) -> dict[str, str]:
    """Return the digest of what a backbone starts from, by the setting's name; empty where the name must stand for it.

    Raises:
        InputError: the resource isn't fetched yet.
        RunError: its manifest is damaged.
    """
    source = source_of(config)
    digest = source and source.digest()
    return {source.key: digest} if source and digest else {}


def _listing_digest(files: Mapping[str, str]) -> str:
    """SHA-256 of the listing that the command sha256sum prints for these files, in order of their names."""
    listing = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_once(path.absolute(), stat.st_size, stat.st_mtime_ns)


@cache
def _sha256_once(path: Path, size: int, changed: int) -> str:
    """Hash a file once per run of the program, as long as it stays the same."""
    return sha256(path)
