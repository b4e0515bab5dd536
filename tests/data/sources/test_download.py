import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from raw_files import Quiet

from peso_cli.data.sources.download import download
from peso_cli.errors import InputError, RunError
from peso_cli.resources.cache import cache_folder

CONTENT = bytes(range(256)) * 4000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Site(BaseHTTPRequestHandler):
    """A server with one file, whose connections break off where a test says so."""

    content, tag, breaks, ranges, asked = CONTENT, '"one"', [], True, []

    def do_GET(self):
        site = type(self)
        site.asked.append(self.headers.get("Range"))
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        if self.path.startswith("/away"):
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/file")
            self.end_headers()
            return
        first = self._begin()
        body = site.content[first:]
        self.wfile.write(body[: site.breaks.pop(0)] if site.breaks else body)

    def _begin(self):
        site = type(self)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first, size = int(wanted[1]) if wanted and site.ranges else 0, len(site.content)
        if first >= size:
            self.send_error(416)
            return size
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        if site.tag:
            self.send_header("ETag", site.tag)
        self.send_header("Content-Length", str(size - first))
        self.end_headers()
        return first

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch, tmp_path):
    """The server, with its address in `url`, and an empty cache."""
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    handler = type("Fresh", (Site,), {"breaks": [], "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        handler.url = f"http://127.0.0.1:{server.server_port}/some/events.csv?token=1"
        yield handler
        server.shutdown()


def refusal(url, checksum=None, kind=RunError):
    with pytest.raises(kind) as caught:
        download(url, checksum, Quiet())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_comes_once_and_lies_under_its_own_name(site):
    path = download(site.url, SHA, Quiet())
    folder = cache_folder() / "downloads" / hashlib.sha256(site.url.encode()).hexdigest()
    assert path == folder / "events.csv"
    assert path.read_bytes() == CONTENT
    told = Quiet()
    assert download(site.url, SHA, told) == path
    assert told == []
    assert site.asked == [None]
    assert {p.name for p in folder.iterdir()} == {"events.csv", ".lock"}


def test_a_connection_that_breaks_off_goes_on_where_it_stopped(site):
    site.breaks[:] = [300_000, 200_000]
    assert download(site.url, SHA, Quiet()).read_bytes() == CONTENT
    assert site.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_run_goes_on_where_an_earlier_one_had_to_stop(site):
    site.breaks[:] = [300_000, 0, 0, 0]
    message = refusal(site.url)
    assert "broke off after 300,000 of 1,024,000 bytes" in message
    assert message.endswith("run the command again to go on from there")
    site.asked.clear()
    assert download(site.url, SHA, Quiet()).read_bytes() == CONTENT
    assert site.asked == ["bytes=300000-"]


@pytest.mark.parametrize("change", ["tag", "size", "tag and shorter"])
def test_a_file_that_has_changed_meanwhile_is_not_glued(site, change):
    site.breaks[:] = [300_000, 0, 0, 0]
    refusal(site.url)
    site.content = {"tag": CONTENT[::-1], "size": CONTENT[::-1] + b"more", "tag and shorter": b"short"}[change]
    site.tag = '"one"' if change == "size" else '"two"'
    assert download(site.url, None, Quiet()).read_bytes() == site.content


@pytest.mark.parametrize(("tag", "ranges"), [(None, True), ('"one"', False)])
def test_a_server_that_can_not_vouch_for_the_rest_is_asked_for_everything(site, tag, ranges):
    site.tag, site.ranges = tag, ranges
    site.breaks[:] = [300_000]
    assert download(site.url, SHA, Quiet()).read_bytes() == CONTENT


def test_a_part_that_was_written_to_its_end_is_not_asked_for_again(site):
    path = download(site.url, None, Quiet())
    part = path.with_name(".events.csv.part")
    path.rename(part)
    part.with_name(".events.csv.part.json").write_text(
        f'{{"etag": "\\"one\\"", "modified": null, "size": {len(CONTENT)}}}'
    )
    site.asked.clear()
    assert download(site.url, SHA, Quiet()) == path
    assert site.asked == []


def test_a_wrong_checksum_is_told_each_time_with_the_remedy_and_nothing_comes_twice(site):
    for _ in range(2):
        message = refusal(site.url, "0" * 64)
        assert f"its SHA-256 is {SHA}, not {'0' * 64}; mend dataset.checksums, or remove " in message
    assert site.asked == [None]


def test_what_is_not_there_is_said_in_one_line(site):
    root = site.url.rpartition("/some/")[0]
    assert refusal(f"{root}/missing") == f"{root}/missing: the server says 404 Not Found"
    assert "unknown url type: ftp" in refusal(f"{root}/away")
    assert "Connection refused" in refusal("http://127.0.0.1:9/events.csv")
    refusal("http://[bad/x", kind=InputError)


def test_names_that_lead_elsewhere_are_not_followed(site):
    root = site.url.rpartition("/some/")[0]
    for path in ("/a/..", "/", "/a/%2e%2e", "/a%2f..%2f..", "/" + "x" * 400, "/%00"):
        place = download(root + path, None, Quiet())
        assert place.parent.parent == cache_folder() / "downloads"
        assert place.read_bytes() == CONTENT
