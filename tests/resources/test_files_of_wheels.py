import hashlib
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from raw_files import Quiet
from wheels import write_wheel

from peso_cli.errors import RunError
from peso_cli.resources.minilm import MiniLM
from peso_cli.resources.movielens import MovieLens
from peso_cli.resources.registry import RESOURCES

FILES = {"one.txt": b"first", "two.bin": b"second"}
MEMBERS = {f"some_files/deep/{name}": hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


@pytest.fixture
def places(monkeypatch, tmp_path):
    """An empty package index, a hub that can't be reached, and empty folders to bring something into."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("index", "folder", "scratch", "site"):
        (tmp_path / name).mkdir()
    return SimpleNamespace(**{name: tmp_path / name for name in ("index", "folder", "scratch", "site")})


def publish(places, files=FILES):
    written = {}
    for name, content in files.items():
        (places.site / name).write_bytes(content)
        written[f"some_files/deep/{name}"] = places.site / name
    write_wheel(places.index, "some_files", "1.0", written)


def minilm():
    return MiniLM("an encoder", "some-files==1.0", 1000, MEMBERS, "someone/encoder")


def movielens(archive="http://127.0.0.1:9/ml.zip", checksum="0" * 64):
    return MovieLens("ratings", "some-files==1.0", 1000, MEMBERS, archive, checksum, ("ml/u.data", "ml/u.item"))


def bring(resource, places):
    return resource.bring(places.folder, places.scratch, Quiet())


def refusal(resource, places):
    with pytest.raises(RunError) as caught:
        bring(resource, places)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("resource", [minilm(), movielens()])
def test_files_come_out_of_the_wheel(places, resource):
    publish(places)
    assert bring(resource, places) == {"from": "wheel", "name": "some-files", "version": "1.0"}
    assert contents(places.folder) == FILES


@pytest.mark.parametrize("resource", [minilm(), movielens()])
def test_a_wheel_with_another_file_is_refused(places, resource):
    publish(places, FILES | {"two.bin": b"other"})
    assert "some_files/deep/two.bin isn't the known file" in refusal(resource, places)


@pytest.mark.parametrize("resource", [minilm(), movielens()])
def test_a_wheel_that_lacks_a_file_is_refused(places, resource):
    publish(places, {"one.txt": b"first"})
    assert "can't take some_files/deep/two.bin out of it" in refusal(resource, places)


def test_an_encoder_comes_from_the_hub_where_there_is_no_wheel(monkeypatch, places):
    def snapshot_download(name, *, revision, allow_patterns, cache_dir):
        assert (name, revision) == ("someone/encoder", "5" * 40)
        (cache_dir / "got").mkdir()
        (cache_dir / "got" / "config.json").write_text("{}")
        return str(cache_dir / "got")

    monkeypatch.setattr("peso_cli.resources.hub.hub_answers", lambda: True)
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name: SimpleNamespace(sha="5" * 40))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert bring(minilm(), places) == {"from": "hub", "name": "someone/encoder", "version": "5" * 40}
    assert contents(places.folder) == {"config.json": b"{}"}


def test_without_wheel_and_hub_both_reasons_are_told(places):
    message = refusal(minilm(), places)
    assert "No matching distribution found for some-files==1.0" in message
    assert message.endswith("and the model hub can't be reached")


@pytest.fixture
def home_page(places):
    """A server of the folder `site`, by its address."""

    class Site(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(places.site))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def archived(places, home_page, **members):
    """Put a zip file on the home page; return the resource that names it."""
    with zipfile.ZipFile(places.site / "ml.zip", "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return movielens(f"{home_page}/ml.zip", hashlib.sha256((places.site / "ml.zip").read_bytes()).hexdigest())


def test_ratings_come_from_the_home_page_where_there_is_no_wheel(places, home_page, tmp_path):
    evil = {"../evil": "x", "/evil": "x", "ml/readme": "x"}
    resource = archived(places, home_page, **{"ml/u.data": "ratings", "ml/u.item": "films"}, **evil)
    source = bring(resource, places)
    assert (source["from"], source["name"]) == ("home page", f"{home_page}/ml.zip")
    assert contents(places.folder) == {"u.data": b"ratings", "u.item": b"films"}
    assert not (tmp_path / "evil").exists()


def test_an_archive_that_lacks_a_file_or_is_none_is_refused(places, home_page):
    assert "ml.zip: can't be unpacked (" in refusal(archived(places, home_page, **{"ml/u.data": "ratings"}), places)
    (places.site / "no.zip").write_bytes(b"no archive")
    checksum = hashlib.sha256(b"no archive").hexdigest()
    assert "no.zip: can't be unpacked (" in refusal(movielens(f"{home_page}/no.zip", checksum), places)


def test_without_wheel_and_home_page_both_reasons_are_told(places):
    message = refusal(movielens(), places)
    assert "No matching distribution found for some-files==1.0" in message
    assert "nor does its home page (http://127.0.0.1:9/ml.zip: can't be downloaded (Connection refused))" in message


@pytest.mark.parametrize(("name", "kind"), [("minilm", MiniLM), ("movielens_100k", MovieLens)])
def test_the_real_descriptions_are_pinned(name, kind):
    resource = RESOURCES[name]
    assert isinstance(resource, kind)
    assert resource.wheel.count("==") == 1
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in resource.members.values())
