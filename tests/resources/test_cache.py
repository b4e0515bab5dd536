import json
import threading
import time
from pathlib import Path

import pytest

from peso_cli.errors import RunError
from peso_cli.files import sha256
from peso_cli.resources.cache import cache_folder, find, store

SOURCE = {"from": "wheel", "name": "somewhere", "version": "1.0"}


@pytest.fixture(autouse=True)
def root(monkeypatch, tmp_path):
    """The cache of a test."""
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def bringing(**files):
    """A way to bring files of these contents."""

    def bring(folder, scratch):
        (scratch / "download").write_text("on the way")
        (folder / "inner").mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        (folder / "inner" / "deep.json").write_text("{}")
        return SOURCE

    return bring


def failing(folder, scratch):
    (folder / "a").write_text("half")
    raise RunError("broken off")


def names_in(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def complaint(function, *arguments):
    with pytest.raises(RunError) as caught:
        function(*arguments)
    return str(caught.value)


# Where the cache is


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "cache"
    for unset in (lambda: monkeypatch.setenv("PESO_CACHE", ""), lambda: monkeypatch.delenv("PESO_CACHE")):
        unset()
        assert cache_folder() == tmp_path / "xdg" / "peso"
    for other in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", other)
        assert cache_folder() == Path.home() / ".cache" / "peso"


def test_a_relative_cache_is_taken_from_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PESO_CACHE", "here")
    assert cache_folder() == tmp_path / "here"


# Bringing


def test_what_was_stored_is_found_with_source_and_checksums(root):
    stored = store("thing", bringing(a="one", b="two"), force=False)
    assert stored == find("thing")
    assert stored.folder == root / "thing"
    assert stored.files == {name: sha256(root / "thing" / name) for name in ("a", "b", "inner/deep.json")}
    assert json.loads((root / "thing" / "manifest.json").read_text()) == {
        "name": "thing",
        "source": SOURCE,
        "files": stored.files,
    }
    assert stored.size == len("one") + len("two") + len("{}")
    assert names_in(root) == {"thing"}
    stored.verify()


def test_nothing_is_found_before():
    assert find("thing") is None


def test_what_failed_leaves_nothing(root):
    assert complaint(store, "thing", failing, False) == "broken off"
    assert find("thing") is None
    assert names_in(root) == set()


def test_what_is_there_survives_a_failed_replacement(root):
    store("thing", bringing(a="one"), force=False)
    complaint(store, "thing", failing, True)
    find("thing").verify()
    assert (root / "thing" / "a").read_text() == "one"
    assert names_in(root) == {"thing"}


def test_what_is_there_is_kept_unless_forced(root):
    store("thing", bringing(a="one"), force=False)
    store("thing", bringing(a="other"), force=False)
    assert (root / "thing" / "a").read_text() == "one"
    store("thing", bringing(b="other"), force=True)
    assert names_in(root / "thing") == {"b", "inner", "manifest.json"}
    assert names_in(root) == {"thing"}


def test_a_folder_without_a_manifest_is_not_taken_for_finished(root):
    (root / "thing").mkdir(parents=True)
    (root / "thing" / "a").write_text("half")
    assert find("thing") is None
    store("thing", bringing(b="whole"), force=False)
    assert names_in(root / "thing") == {"b", "inner", "manifest.json"}


def test_what_a_killed_process_left_is_cleared_away(root):
    (root / ".thing.part" / "folder").mkdir(parents=True)
    (root / ".thing.part" / "folder" / "a").write_text("half")
    store("thing", bringing(b="whole"), force=False)
    assert names_in(root / "thing") == {"b", "inner", "manifest.json"}
    assert names_in(root) == {"thing"}


def test_files_that_a_library_keeps_to_their_owner_can_be_shared(root):
    def bring(folder, scratch):
        (folder / "secret").touch(mode=0o600)
        return SOURCE

    store("thing", bring, force=False)
    modes = {path.stat().st_mode for path in (root / "thing").iterdir()}
    assert len(modes) == 1


def test_two_at_once_bring_it_once():
    brought = []

    def slowly(folder, scratch):
        brought.append(threading.get_ident())
        time.sleep(0.2)
        return bringing(a="one")(folder, scratch)

    threads = [threading.Thread(target=store, args=("thing", slowly, False)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(brought) == 1
    find("thing").verify()


# Damage


@pytest.mark.parametrize("damage", [lambda p: p.write_text("onE"), lambda p: p.unlink()])
def test_a_damaged_file_is_named_with_the_remedy(root, damage):
    stored = store("thing", bringing(a="one", b="two"), force=False)
    damage(root / "thing" / "a")
    message = complaint(stored.verify)
    assert message.startswith(f"{root / 'thing' / 'a'}: ")
    assert message.endswith("; run: peso fetch thing --force")
    stored.verify(["b", "inner/deep.json"])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"source": 3, "files": {}}', json.dumps({"source": SOURCE, "files": {}}), "\udcff"]
)
def test_a_damaged_manifest_is_named(root, text):
    store("thing", bringing(a="one"), force=False)
    (root / "thing" / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    message = complaint(find, "thing")
    assert message == f"{root / 'thing' / 'manifest.json'}: can't be read as a manifest; run: peso fetch thing --force"
    assert store("thing", bringing(a="two"), force=True) == find("thing")
