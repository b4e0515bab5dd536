import pytest
from huggingface_hub import constants
from raw_files import EventColumns, json_lines, open_files, read, write

from peso_cli.errors import InputError, RunError

COLUMNS = EventColumns(user="user", item="item", timestamp="time", rating=None)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No hub, and a cache of the library's own."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "library")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "mine" / "train.csv", "user,item,time\n1,a,5\n")
    write(tmp_path / "mine" / "test.csv", "user,item,time\n2,b,6\n")
    return tmp_path / "mine"


def refusal(name, kind=InputError):
    with pytest.raises(kind) as caught:
        open_files("hugging_face", [name], columns=COLUMNS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_local_folder_with_all_splits_or_one(folder):
    assert read("hugging_face", [folder], columns=COLUMNS)[0] == [("1", "a", "5", None), ("2", "b", "6", None)]
    assert read("hugging_face", [f"{folder}:test"], columns=COLUMNS)[0] == [("2", "b", "6", None)]


def test_items_with_lists(folder, tmp_path):
    write(
        tmp_path / "texts" / "train.jsonl",
        json_lines({"item": "a", "title": "T", "about": ["x", "y"], "maker": None, "kinds": ["k", "l"]}),
    )
    items = read("hugging_face", [folder], [tmp_path / "texts"], columns=COLUMNS)[1]
    assert items == [("a", "T", "x y", None, "k, l")]


def test_what_is_wrong_is_said_in_one_line(folder, tmp_path):
    assert refusal(f"{folder}:valid").endswith("no split 'valid'; there are train, test")
    (tmp_path / "empty").mkdir()
    assert "can't be loaded" in refusal(tmp_path / "empty")
    write(tmp_path / "bad" / "train.csv", 'user,item,time\n1\n"x')
    assert "can't be loaded" in refusal(tmp_path / "bad")
    write(tmp_path / "other" / "train.csv", "users,item,time\n1,a,5\n")
    assert "other[train]: no column 'user' (did you mean users?)" in refusal(tmp_path / "other")


def test_without_the_hub_it_fails_at_once(folder):
    message = refusal("someone/something", kind=RunError)
    assert message.endswith("isn't in the cache of the datasets library, and the hub can't be reached")
    assert not constants.HF_HUB_OFFLINE
