"""Which files an entry of a configuration means."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from peso_cli.data.raw import RawDataset
from peso_cli.data.sources.download import download, is_url
from peso_cli.data.sources.unpacking import unpacked
from peso_cli.errors import InputError, nearest
from peso_cli.resources.cache import MANIFEST, find
from peso_cli.resources.registry import RESOURCES
from peso_cli.stages import Display


@dataclass(frozen=True)
class SourceFile:
    """A file to be read.

    Attributes:
        path: where it lies, not packed.
        shown: what messages call it.
    """

    path: Path
    shown: str


@dataclass(frozen=True)
class Entry:
    """One entry of `interactions` or `items`.

    Attributes:
        setting: the setting it is in.
        text: the entry: the name of a fetched resource, a file, a folder or a URL.
        checksum: the SHA-256 of a URL's file, where it is given.
    """

    setting: str
    text: str
    checksum: str | None

    def files(self, patterns: tuple[str, ...], but: tuple[str, ...], display: Display) -> list[SourceFile]:
        """Return the files it means, in the order of their names.

        Args:
            patterns: names of the files that count in a folder.
            but: names of those that do not, although they match.
            display: where to say what is going on.

        Raises:
            InputError: there is no such thing, or no file that counts in it.
            RunError: a URL can't be had, or what was fetched has changed.
        """
        path = Path(self.text).expanduser()
        if self.text in RESOURCES:
            found = self._inside(self._fetched(), patterns, but)
        elif path.is_dir():
            found = self._inside(path, patterns, but)
        elif path.is_file():
            found = [SourceFile(path, self.text)]
        elif is_url(self.text):
            path = download(self.text, self.checksum, display)
            found = [SourceFile(path, path.name)]
        else:
            raise InputError(f"{self}: there is no such file, folder or fetched resource{self._near(path)}")
        return [_plain(file, display) for file in found]

    def __str__(self) -> str:
        return f"{self.setting}={self.text}"

    def _fetched(self) -> Path:
        fetched = find(self.text)
        if fetched is None:
            raise InputError(f"{self}: isn't fetched yet; run: peso fetch {self.text}")
        fetched.verify()
        return fetched.folder

    def _inside(self, folder: Path, patterns: tuple[str, ...], but: tuple[str, ...]) -> list[SourceFile]:
        names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
        found = [name for name in names if _matches(name, patterns) and not _matches(name, but)]
        if not found:
            raise InputError(f"{self}: no file in {folder} is called {' or '.join(patterns)}")
        return [SourceFile(folder / name, f"{self.text}/{name}") for name in found]

    def _near(self, path: Path) -> str:
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        return nearest(path.name, [*siblings, *RESOURCES])


def entries(config: RawDataset) -> tuple[list[Entry], list[Entry]]:
    """Return the entries for interactions and for items.

    Raises:
        InputError: there are checksums, and not one for each URL.
    """
    both = (*config.interactions, *config.items)
    urls = [text for text in both if is_url(text)]
    if config.checksums and len(config.checksums) != len(urls):
        raise InputError(f"dataset.checksums: {len(config.checksums)} given for {len(urls)} URLs; give one for each")
    checksums = dict(zip(urls, config.checksums, strict=False))
    interactions = [Entry("dataset.interactions", text, checksums.get(text)) for text in config.interactions]
    return interactions, [Entry("dataset.items", text, checksums.get(text)) for text in config.items]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _plain(file: SourceFile, display: Display) -> SourceFile:
    if file.path.suffix != ".gz":
        return file
    display.say(f"unpacking {file.shown}")
    return SourceFile(unpacked(file.path, file.shown), file.shown)
