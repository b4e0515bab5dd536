"""Downloads of URLs into the cache; one that breaks off goes on where it stopped, and none is made twice."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from peso_cli.errors import InputError, RunError
from peso_cli.files import fsync_folder, sha256, write_json
from peso_cli.resources.cache import cache_folder

if TYPE_CHECKING:
    from peso_cli.stages import Display

_TIMEOUT = 30.0
"""Seconds without an answer after which a server counts as gone."""

_STEP = 1 << 20
_ATTEMPTS = 3
"""Connections in a row that may break off without bringing anything."""


def is_url(text: str) -> bool:
    """Tell whether a text is a URL of the web."""
    return text.startswith(("http://", "https://"))


def download(url: str, checksum: str | None, display: Display) -> Path:
    """Return the file of a URL, brought into the cache where it isn't there yet.

    Args:
        url: http or https.
        checksum: the SHA-256 that it must have; None to take what comes.
        display: where to say what is going on.

    Raises:
        InputError: the URL can't be one.
        RunError: it can't be had, or isn't what it should be.
    """
    place = _place(url)
    with _alone(place):
        if not place.is_file():
            display.say(f"downloading {url}")
            _bring(url, place, display.bar(f"downloading {place.name}"))
    if checksum and (found := sha256(place)) != checksum:
        mend = f"mend dataset.checksums, or remove {place} to download it again"
        raise RunError(f"{url}: its SHA-256 is {found}, not {checksum}; {mend}")
    return place


def _place(url: str) -> Path:
    try:
        name = Path(unquote(urlsplit(url).path)).name
    except ValueError as error:
        raise InputError(f"{url}: not a URL ({error})") from None
    if name in ("", "..") or not name.isprintable():
        name = "download"
    # A file system takes 255 bytes, and the end of the name tells what is in the file.
    kept = name.encode()[-200:].decode(errors="ignore")
    return cache_folder() / "downloads" / hashlib.sha256(url.encode(errors="replace")).hexdigest() / kept


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Wait until no other process brings this file."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle = (place.parent / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{place.parent}: can't be written to ({error.strerror})") from None
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class _Version:
    """What a server says of a file, by which a changed one is told.

    Attributes:
        etag: its tag.
        modified: when it was changed last.
        size: its bytes; None where the server doesn't say.
    """

    etag: str | None
    modified: str | None
    size: int | None

    @property
    def told(self) -> bool:
        """Whether equal versions mean equal files."""
        return self.size is not None and bool(self.etag or self.modified)


def _bring(url: str, place: Path, tick: Callable[[int, int, str], None]) -> None:
    part = place.with_name(f".{place.name}.part")
    left, most = _ATTEMPTS, _size(part)
    while True:
        try:
            version = _go_on(url, part, tick)
        except HTTPError as error:
            raise RunError(f"{url}: the server says {error.code} {error.reason}") from None
        except (HTTPException, OSError, ValueError) as error:
            reason = _reason(error)
        else:
            if version.size is None or _size(part) == version.size:
                break
            reason = f"the connection broke off after {_size(part):,} of {version.size:,} bytes"
        left, most = (_ATTEMPTS if _size(part) > most else left - 1), max(most, _size(part))
        if not left or not _size(part):
            again = "; run the command again to go on from there" if _size(part) else ""
            raise RunError(f"{url}: can't be downloaded ({reason}){again}")
    part.replace(place)
    _note(part).unlink(missing_ok=True)
    fsync_folder(place.parent)


def _go_on(url: str, part: Path, tick: Callable[[int, int, str], None]) -> _Version:
    """Append what is still to come, or begin anew where the server has another file by now or can't say."""
    have, known = _size(part), _noted(part)
    if not (have and known and known.told):
        have = 0
    if known and have == known.size:
        return known
    headers = {"Accept-Encoding": "identity", "User-Agent": "peso"}
    try:
        answer = _open(url, {**headers, "Range": f"bytes={have}-"} if have else headers)
    except HTTPError as error:
        if not have or error.code != 416:  # there is nothing that far: it isn't the same file
            raise
        answer = _open(url, headers)
    with answer:
        version = _version(answer)
        if answer.status == 206 and (version != known or _start(answer) != have):
            answer.close()
            part.unlink()
            return _go_on(url, part, tick)
        if answer.status != 206:
            have = 0
            part.unlink(missing_ok=True)  # before the note speaks of what is to come
        write_json(_note(part), asdict(version))
        _write(answer, part, have, version.size, tick)
    return version


def _write(
    answer: HTTPResponse, part: Path, have: int, size: int | None, tick: Callable[[int, int, str], None]
) -> None:
    with part.open("r+b" if have else "wb") as handle:
        handle.seek(have)
        while chunk := answer.read1(_STEP):
            handle.write(chunk)
            have += len(chunk)
            tick(have // 10**6, (size or have) // 10**6, "MB")
        os.fsync(handle.fileno())


def _version(answer: HTTPResponse) -> _Version:
    """Read a server's answer; for a part of a file it gives the size of the whole behind a slash."""
    length = answer.headers.get("Content-Length")
    if answer.status == 206:
        length = answer.headers.get("Content-Range", "").rpartition("/")[2]
    size = int(length) if length and length.isdecimal() else None
    return _Version(answer.headers.get("ETag"), answer.headers.get("Last-Modified"), size)


def _start(answer: HTTPResponse) -> int | None:
    """Return where the part of a file begins that a server gives: `bytes 17-99/100`."""
    first = answer.headers.get("Content-Range", "").removeprefix("bytes").strip().partition("-")[0]
    return int(first) if first.isdecimal() else None


def _open(url: str, headers: Mapping[str, str]) -> HTTPResponse:
    opener = OpenerDirector()
    # urllib's own choice would also follow a server to other protocols.
    for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPRedirectHandler, HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(HTTPDefaultErrorHandler())
    opener.add_handler(UnknownHandler())
    answer = opener.open(Request(url, headers=dict(headers)), timeout=_TIMEOUT)
    assert isinstance(answer, HTTPResponse)
    return answer


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, URLError) else error
    return " ".join(str(getattr(inner, "strerror", None) or inner).split())[:200] or type(error).__name__


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _noted(part: Path) -> _Version | None:
    """Return the version that a part is of."""
    try:
        return _Version(**json.loads(_note(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
