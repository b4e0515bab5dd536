import json

import pytest
from raw_files import config, json_lines, open_files, read, write

from peso_cli.data.sources.files import entries
from peso_cli.data.sources.unpacking import unpacked
from peso_cli.errors import InputError, RunError
from peso_cli.files import sha256

ROW = {"user": "u", "item": "i", "time": 1, "stars": 2}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refusal(source, interactions, kind=InputError, **settings):
    with pytest.raises(kind) as caught:
        open_files(source, interactions, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fetched(cache):
    """MovieLens as if it had been fetched."""
    folder = cache / "movielens_100k"
    inter = write(folder / "ml-100k.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t4\n")
    source = {"from": "wheel", "name": "n", "version": "1"}
    write(folder / "manifest.json", json.dumps({"source": source, "files": {"ml-100k.inter": sha256(inter)}}))
    return inter


def test_a_fetched_resource_comes_before_a_folder_of_its_name(cache, monkeypatch, tmp_path):
    fetched(cache)
    (tmp_path / "movielens_100k").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read("movielens", ["movielens_100k"])[0] == [("1", "2", "4", 3.0)]


def test_a_resource_must_be_fetched_and_whole(cache):
    assert refusal("movielens", ["movielens_100k"]).endswith("isn't fetched yet; run: peso fetch movielens_100k")
    fetched(cache).write_text("changed")
    assert "changed since it was fetched" in refusal("movielens", ["movielens_100k"], kind=RunError)


def test_what_is_not_there_is_named_with_what_is_near(tmp_path):
    write(tmp_path / "events.csv", "x")
    message = refusal("csv", [tmp_path / "event.csv"])
    assert message.startswith(f"dataset.interactions={tmp_path / 'event.csv'}: there is no such file")
    assert message.endswith("(did you mean events.csv?)")
    assert "did you mean movielens_100k?" in refusal("movielens", ["movielens_10k"])


def test_names_with_signs_of_patterns_are_taken_as_they_are(tmp_path):
    write(tmp_path / "a1.jsonl", json_lines({**ROW, "user": "other"}))
    file = write(tmp_path / "a[1].jsonl", json_lines(ROW))
    assert read("jsonl", [file])[0] == [("u", "i", "1", 2.0)]


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b\x08\x00cut"])
def test_what_is_no_whole_gzip_file_is_refused(tmp_path, content):
    file = tmp_path / "e.jsonl.gz"
    file.write_bytes(content)
    refusal("jsonl", [file])


def test_a_gzip_file_that_was_cut_leaves_no_copy(tmp_path):
    file = write(tmp_path / "e.csv.gz", "user,item\n" * 1000)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a whole gzip file"):
        unpacked(file, "e.csv.gz")
    whole = write(tmp_path / "f.csv.gz", "a,b\n")
    copy = unpacked(whole, "f.csv.gz")
    assert copy.read_text() == "a,b\n"
    assert [path for path in copy.parent.parent.rglob("*.csv") if path.name == "e.csv"] == []


def test_checksums_belong_to_the_urls_in_their_order():
    one, two = "a" * 64, "b" * 64
    mine = config("csv", ["e.csv", "http://x/e.csv"], ["https://x/i.csv"], checksums=(one, two))
    interactions, items = entries(mine)
    assert [entry.checksum for entry in (*interactions, *items)] == [None, one, two]
    with pytest.raises(InputError, match=r"dataset\.checksums: 1 given for 2 URLs"):
        entries(config("csv", ["http://x/e.csv"], ["https://x/i.csv"], checksums=(one,)))
