"""The cache of fetched resources: a folder each, whose manifest, written last, names the source and all checksums."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peso_cli.errors import RunError
from peso_cli.files import fsync_folder, read_json, sha256, write_json

MANIFEST = "manifest.json"

_SOURCE = {"from", "name", "version"}


@dataclass(frozen=True)
class Fetched:
    """A resource that lies in the cache.

    Attributes:
        folder: its folder, which bears its name.
        source: where it came from: `from` (wheel or hub), `name`, `version`, and more.
        files: SHA-256 of each file, by its path within the folder.
    """

    folder: Path
    source: dict[str, str]
    files: dict[str, str]

    @property
    def manifest(self) -> dict[str, Any]:
        """What its manifest says."""
        return {"name": self.folder.name, "source": self.source, "files": self.files}

    @property
    def origin(self) -> str:
        """Where it came from, in words."""
        return f"{self.source['from']}: {self.source['name']} {self.source['version']}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.folder / name).stat().st_size for name in self.files if (self.folder / name).is_file())

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Check files (none named: all) against their checksums.

        Raises:
            RunError: a file is missing or has changed.
        """
        for name in self.files if names is None else names:
            path = self.folder / name
            if not path.is_file():
                raise RunError(f"{path}: missing from what was fetched; {_mend(self.folder.name)}")
            if sha256(path) != self.files[name]:
                raise RunError(f"{path}: changed since it was fetched; {_mend(self.folder.name)}")


def cache_folder() -> Path:
    """Return `$PESO_CACHE`, else `$XDG_CACHE_HOME/peso`, else `~/.cache/peso`."""
    if own := os.environ.get("PESO_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG standard has relative paths ignored.
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "peso"


def find(name: str) -> Fetched | None:
    """Return a resource of the cache; None where it was never fetched, or not to the end.

    Raises:
        RunError: its manifest is damaged.
    """
    folder = cache_folder() / name
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = read_json(folder / MANIFEST)
        fetched = Fetched(folder, dict(manifest["source"]), dict(manifest["files"]))
        broken = not fetched.source.keys() >= _SOURCE or not fetched.files
    except (OSError, ValueError, KeyError, TypeError):
        broken = True
    if broken:
        raise RunError(f"{folder / MANIFEST}: can't be read as a manifest; {_mend(name)}")
    return fetched


def store(name: str, bring: Callable[[Path, Path], Mapping[str, str]], force: bool) -> Fetched:
    """Bring a resource into the cache; one process at a time, so that a second one finds what the first one brought.

    Args:
        name: the resource's name.
        bring: fills the folder it is given, uses a second one for what it needs on the way, and returns the source:
            `from`, `name`, `version` and more if it likes.
        force: replace what is there already.
    """
    with _alone(name):
        present = None if force else find(name)
        return present or _bring(name, bring)


def _bring(name: str, bring: Callable[[Path, Path], Mapping[str, str]]) -> Fetched:
    place = cache_folder() / name
    working = place.with_name(f".{name}.part")
    _remove(working)  # what a killed process left
    folder, scratch = working / "folder", working / "scratch"
    folder.mkdir(parents=True)
    scratch.mkdir()
    try:
        source = dict(bring(folder, scratch))
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
        fetched = Fetched(place, source, files)
        write_json(folder / MANIFEST, fetched.manifest)
        _flush(folder)
        if place.exists():
            place.rename(working / "replaced")
        folder.rename(place)
        fsync_folder(place.parent)
    finally:
        _remove(working)
    return fetched


def _flush(folder: Path) -> None:
    """Put everything on disk; libraries write some files for their owner alone, though caches may be shared."""
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
            continue
        shutil.copymode(folder / MANIFEST, path)
        with path.open("rb+") as handle:
            os.fsync(handle.fileno())
    fsync_folder(folder)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait until no other process brings this resource; a lock ends with its process, however that ends."""
    root = cache_folder()
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _mend(name: str) -> str:
    return f"run: peso fetch {name} --force"
