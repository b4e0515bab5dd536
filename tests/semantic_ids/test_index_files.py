import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.semantic_ids.catalog import read_catalog
from peso_cli.semantic_ids.index_files import write_index


def test_an_index_is_in_the_released_layout(tmp_path):
    path = tmp_path / "toy.index.json"
    write_index(path, ["0", "zoë"], np.array([[1, 0, 12], [255, 3, 4]], np.int32))
    assert path.read_text(encoding="utf-8") == (
        '{"0": ["<a_1>", "<b_0>", "<c_12>"], "zoë": ["<a_255>", "<b_3>", "<c_4>"]}\n'
    )


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 999_999), min_size=3, max_size=3), min_size=1, max_size=8), data=st.data())
def test_what_is_written_is_read_back(tmp_path_factory, rows, data):
    ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    items = data.draw(st.lists(ids, min_size=len(rows), max_size=len(rows), unique=True))
    path = tmp_path_factory.mktemp("index") / "toy.index.json"
    write_index(path, items, np.array(rows, np.int32))
    catalog = read_catalog(path)
    assert catalog.items == tuple(items)
    assert catalog.codes.tolist() == rows


def test_an_index_that_fails_leaves_the_one_before(tmp_path):
    path = tmp_path / "toy.index.json"
    write_index(path, ["0"], np.array([[1]], np.int32))
    with pytest.raises(ValueError, match="shorter"):
        write_index(path, ["0", "1"], np.array([[2]], np.int32))
    assert read_catalog(path).codes.tolist() == [[1]]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
