import json
import re

import numpy as np
import pytest
from encoders import Lines, items_of
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.errors import InputError
from peso_cli.semantic_ids.embeddings.array import ArrayEmbedding

ITEMS = items_of(["", "", ""])
VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def stored(tmp_path):
    """Write an array, or bytes, and the ids of its rows, as text or a JSON-able value, and return the part."""

    def write(values=VALUES, ids=None):
        path, named = tmp_path / "vectors.npy", None
        if isinstance(values, bytes):
            path.write_bytes(values)
        else:
            np.save(path, values, allow_pickle=True)
        if ids is not None:
            named = tmp_path / ("ids.txt" if isinstance(ids, str | bytes) else "ids.json")
            named.write_bytes(
                ids if isinstance(ids, bytes) else (ids if isinstance(ids, str) else json.dumps(ids)).encode()
            )
        return ArrayEmbedding(str(path), str(named) if named else None)

    return write


def refusal(part, items=ITEMS):
    with pytest.raises(InputError) as caught:
        part.embed(items, Lines())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8"])
def test_rows_follow_the_catalog_where_nothing_names_them(stored, dtype):
    found = stored(VALUES.astype(dtype)).embed(ITEMS, Lines())
    assert (found.dtype, found.flags.c_contiguous, found.flags.writeable) == (np.float32, True, True)
    assert found.tolist() == VALUES.tolist()


@settings(max_examples=50, deadline=None)
@given(st.permutations([f"i{n}" for n in range(6)]), st.booleans())
def test_rows_follow_the_ids_that_name_them(tmp_path_factory, ids, as_json):
    folder = tmp_path_factory.mktemp("array")
    np.save(folder / "v.npy", np.asfortranarray([[int(item[1:]), -1.0] for item in ids]))
    named = folder / ("ids.json" if as_json else "ids.txt")
    named.write_text(json.dumps(ids) if as_json else "\n".join(ids) + "\n")
    display = Lines()
    found = ArrayEmbedding(str(folder / "v.npy"), str(named)).embed(items_of([""] * 4), display)
    assert found.tolist() == [[n, -1] for n in range(4)]
    assert display.said == ["array: 2 of 6 rows are of no item of the dataset"]


BROKEN = {
    "four rows": (np.zeros((4, 2)), "holds 4 rows for 3 items; name the rows' items with embedding.items=FILE"),
    "one dimension": (np.zeros(3), "float64 of shape (3,)"),
    "no width": (np.zeros((3, 0)), "shape (3, 0)"),
    "whole numbers": (np.zeros((3, 2), dtype=int), "holds int64"),
    "objects": (np.array([[None, 1]] * 3), "not a whole .npy file"),
    "nonsense": (b"nonsense", "not a whole .npy file"),
    "nothing": (b"", "not a whole .npy file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_array_of_vectors_is_refused(stored, case):
    values, reason = BROKEN[case]
    part = stored(values)
    assert reason in (message := refusal(part))
    assert message.startswith(part.path)


def test_a_file_that_was_cut_off_is_refused(stored):
    part = stored(np.zeros((300, 20)))
    with open(part.path, "rb+") as handle:
        handle.truncate(1000)
    assert "not a whole .npy file" in refusal(part)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_what_is_no_number_is_named_with_row_and_item(stored, bad):
    values = VALUES.astype(np.float64)
    values[0, 1] = values[1, 0] = bad
    assert "row 1 (item 'i0')" in refusal(stored(values, ["i2", "i0", "i1"]))


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ("i0\ni1\n", "names 2 items, but"),
        ("i0\ni1\nx\n", "lacks item 'i2' of the dataset"),
        (["i0", "y", "x"], "lacks item 'i1' and 1 others of the dataset"),
        (["i0", "i1", "i1"], "names item 'i1' twice"),
        ([0, 1, 2], "needs a list of ids as text"),
        ({"i0": 0}, "needs a list of ids as text"),
        (b"\xff", "not UTF-8 text at byte 0"),
    ],
)
def test_ids_that_do_not_fit_are_refused(stored, ids, reason):
    part = stored(VALUES, ids)
    assert reason in (message := refusal(part))
    assert message.startswith(part.items)


def test_a_broken_list_of_ids_is_refused_with_the_place(stored, tmp_path):
    part = stored(VALUES, [])
    (tmp_path / "ids.json").write_text('["i0",\n')
    assert re.search(r"ids.json:\d:\d: not valid JSON", refusal(part))


def test_missing_files_are_named_with_their_setting(stored, tmp_path):
    gone = str(tmp_path / "gone")
    assert refusal(ArrayEmbedding(gone, None)) == f"embedding.path={gone}: no such file"
    assert refusal(ArrayEmbedding(stored().path, gone)) == f"embedding.items={gone}: no such file"


def test_several_arrays_in_one_file_are_refused(tmp_path):
    np.savez(tmp_path / "v.npz", VALUES, VALUES)
    assert "holds several arrays" in refusal(ArrayEmbedding(str(tmp_path / "v.npz"), None))
