import json

import numpy as np
import polars as pl
import pytest
from commands.running import files_of

from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids import store
from peso_cli.semantic_ids.store import read_stored, write_appended, write_new

FIRST = (["i0", "i1", "i2"], np.array([[0, 1], [1, 1], [3, 0]], np.int32))
SECOND = (["i3"], np.array([[2, 2]], np.int32))
THIRD = (["i4", "i5"], np.array([[2, 0], [2, 1]], np.int32))
TENSORS = {"centers_0": np.arange(6, dtype=np.float32).reshape(3, 2), "a": np.ones(2, np.float32)}
DOCUMENT = {
    "settings": {"fit_on": "stage_1"},
    "level_sizes": [4, 4],
    "dataset": {"stage_1": "x", "stage_2": "y"},
    "items": 4,
    "items_without_text": 0,
    "quality": {"distinct": 4},
}
MORE = {"dataset": {"stage_3": "z"}, "items": 6, "items_without_text": 1, "quality": {"distinct": 6}}


@pytest.fixture
def folder(tmp_path):
    write_new(tmp_path / "semantic_ids" / "toy", [FIRST, SECOND], TENSORS, DOCUMENT)
    return tmp_path / "semantic_ids" / "toy"


def test_what_is_written_is_read_back(folder):
    stored = read_stored(folder)
    assert stored.items == ("i0", "i1", "i2", "i3")
    assert stored.codes.tolist() == [[0, 1], [1, 1], [3, 0], [2, 2]]
    assert stored.codes.dtype == np.int32
    assert (stored.stages, stored.level_sizes) == (2, (4, 4))
    assert stored.settings == {"fit_on": "stage_1"}
    assert stored.figures == {"items": 4, "items_without_text": 0, "quality": {"distinct": 4}}
    assert {name: tensor.tolist() for name, tensor in stored.tensors().items()} == {
        name: tensor.tolist() for name, tensor in TENSORS.items()
    }


def test_the_folder_holds_what_its_layout_says_and_nothing_else(folder):
    names = {"codebooks.safetensors", "stage_1.parquet", "stage_2.parquet", "tokenizer.json"}
    assert set(files_of(folder)) == names
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]
    document = json.loads((folder / "tokenizer.json").read_text())
    assert (document["format"], document["name"], document["stages"]) == (1, "toy", 2)
    assert set(document["files"]) == names - {"tokenizer.json"}
    assert pl.read_parquet(folder / "stage_2.parquet").schema == {"item": pl.String, "codes": pl.List(pl.Int32)}


def test_equal_content_gives_equal_bytes(folder, tmp_path):
    write_new(tmp_path / "again" / "toy", [FIRST, SECOND], dict(reversed(TENSORS.items())), DOCUMENT)
    assert files_of(tmp_path / "again" / "toy") == files_of(folder)


def test_a_stage_that_is_appended_changes_nothing_else(folder):
    before = files_of(folder)
    write_appended(folder, 3, *THIRD, MORE)
    after = files_of(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"stage_3.parquet", "stage_3.json"}
    stored = read_stored(folder)
    assert stored.stages == 3
    assert stored.items == ("i0", "i1", "i2", "i3", "i4", "i5")
    assert stored.codes[4:].tolist() == THIRD[1].tolist()
    assert stored.dataset == {"stage_1": "x", "stage_2": "y", "stage_3": "z"}
    assert stored.figures["items"] == 6


def test_a_stage_without_new_items_can_be_appended(folder):
    write_appended(folder, 3, [], np.zeros((0, 2), np.int32), MORE)
    assert read_stored(folder).codes.shape == (4, 2)
    assert read_stored(folder).stages == 3


def test_a_stage_whose_last_file_is_missing_does_not_count(folder):
    write_appended(folder, 3, *THIRD, MORE)
    (folder / "stage_3.json").unlink()
    assert read_stored(folder).stages == 2


@pytest.mark.parametrize("name", ["codebooks.safetensors", "stage_1.parquet", "stage_3.parquet"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_file_is_named(folder, name, damage):
    write_appended(folder, 3, *THIRD, MORE)
    if damage == "missing":
        (folder / name).unlink()
    else:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name}: {damage}"):
        read_stored(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "stage_3.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}'])
def test_a_broken_document_is_named(folder, name, content):
    write_appended(folder, 3, *THIRD, MORE)
    (folder / name).write_text(content)
    with pytest.raises(RunError, match=name):
        read_stored(folder)


def test_a_later_format_is_refused(folder):
    document = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(RunError, match="format 99"):
        read_stored(folder)


def test_a_folder_without_semantic_ids_is_one_line(tmp_path):
    with pytest.raises(InputError, match="peso tokenize"):
        read_stored(tmp_path)


def test_a_place_that_is_taken_stays_as_it_is(folder):
    before = files_of(folder)
    with pytest.raises(InputError, match=r"toy: is there already; choose another tokenizer\.name"):
        write_new(folder, [SECOND], TENSORS, DOCUMENT)
    assert files_of(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(path, value):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_new(tmp_path / "toy", [FIRST], TENSORS, DOCUMENT)
    assert list(tmp_path.iterdir()) == []
