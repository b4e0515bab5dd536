import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import block_of, catalog_of, sid_texts, write_released

from peso_cli.data.blocks import hiding_unseen, read_block, read_released
from peso_cli.errors import InputError

CODES = [(0, 0), (0, 1), (2, 0), (1, 1), (2, 0)]
INDEX = {f"i{n}": sid_texts(row) for n, row in enumerate(CODES)}
USERS = {
    "ann": {"previous_block": ["i0", "i1"], "current_block": ["i2", "i0", "i4"]},
    "bob": {"previous_block": [], "current_block": ["i3"]},
}


def refusal(action, *arguments):
    with pytest.raises(InputError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def block_refusal(tmp_path, value):
    """The message with which a block file is refused; it always begins with the file."""
    folder = write_released(tmp_path / "toy", INDEX, {0: value})
    path = folder / "toy.all.block_0.json"
    message = refusal(read_released(folder, "toy").block, 1)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_the_released_layout_becomes_columns(tmp_path):
    write_released(tmp_path, INDEX, {0: USERS, 1: USERS}, {"i0": {"title": "A"}})
    dataset = read_released(tmp_path, "shop")
    assert (dataset.name, dataset.stages) == ("shop", 2)
    assert dataset.catalog.codes.tolist() == [list(row) for row in CODES]
    assert dataset.catalog.titles == {"i0": "A"}
    block = dataset.block(2)
    assert (block.stage, block.users) == (2, ("ann", "bob"))
    assert block.events.tolist() == [0, 1, 2, 0, 4, 3]
    assert (block.starts.tolist(), block.current.tolist()) == ([0, 5, 6], [2, 5])
    assert (block.previous_lengths.tolist(), block.current_lengths.tolist()) == ([2, 0], [3, 1])
    assert block.current_events.tolist() == [2, 0, 4, 3]
    assert dataset.block(2) is block


def test_keys_beside_the_two_lists_are_left_aside(tmp_path):
    users = {"ann": USERS["ann"] | {"times": [1, 2, 3], "note": {"i0": ["i0"]}}}
    block = read_released(write_released(tmp_path, INDEX, {0: users}), "toy").block(1)
    assert block.events.tolist() == [0, 1, 2, 0, 4]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3).filter(lambda u: u.isprintable()),
        st.tuples(st.lists(st.integers(0, 4), max_size=5), st.lists(st.integers(0, 4), min_size=1, max_size=5)),
        min_size=1,
        max_size=5,
    )
)
def test_writing_and_reading_a_block_gives_it_back(tmp_path_factory, users):
    path = tmp_path_factory.mktemp("block") / "toy.all.block_0.json"
    lists = {
        user: {"previous_block": [f"i{n}" for n in previous], "current_block": [f"i{n}" for n in current]}
        for user, (previous, current) in users.items()
    }
    path.write_text(json.dumps(lists))
    block, expected = read_block(path, 2, catalog_of(CODES)), block_of(users)
    assert block.users == expected.users
    assert block.digest == expected.digest
    assert block.events.tolist() == [n for pair in users.values() for part in pair for n in part]


def test_the_digest_tells_blocks_apart():
    digests = [
        block_of(users).digest
        for users in (
            {"u": ([0], [1, 2])},
            {"v": ([0], [1, 2])},
            {"u": ([0, 1], [2])},
            {"u": ([1], [0, 2])},
            {"u": ([0], [1]), "v": ([], [2])},
        )
    ]
    assert len(set(digests)) == len(digests)


def test_real_blocks_are_read_right(shared):
    folder = shared / "data" / "amazon_games"
    dataset = read_released(folder, "amazon_games")
    assert dataset.stages == 5
    (path,) = folder.glob("*.all.block_3.json")
    block, raw = dataset.block(4), json.loads(path.read_text())
    assert block.users == tuple(raw)
    assert block.events.dtype == np.int32
    items = np.array(dataset.catalog.items)
    assert items[block.events].tolist() == [i for u in raw.values() for i in u["previous_block"] + u["current_block"]]
    assert block.previous_lengths.tolist() == [len(u["previous_block"]) for u in raw.values()]


def test_a_dataset_that_lacks_its_first_block_opens_and_says_what_stage_1_needs(shared):
    folder = shared / "data" / "amazon_instruments"
    dataset = read_released(folder, "amazon_instruments")
    assert dataset.stages == 5
    assert [dataset.has(stage) for stage in range(7)] == [False, False, True, True, True, True, False]
    message = refusal(dataset.block, 1)
    assert message == f"stage 1 needs {folder / 'Instruments_cl_ori.all.block_0.json'}, which is missing"


def test_a_gap_between_blocks_is_named_only_when_needed(tmp_path):
    folder = write_released(tmp_path / "toy", INDEX, {0: USERS, 2: USERS})
    dataset = read_released(folder, "toy")
    assert (dataset.stages, dataset.has(2)) == (3, False)
    assert len(dataset.block(3).users) == 2
    assert refusal(dataset.block, 2) == f"stage 2 needs {folder / 'toy.all.block_1.json'}, which is missing"


@pytest.mark.parametrize("stage", [0, -1, 3])
def test_a_stage_that_is_not_there_is_refused(tmp_path, stage):
    dataset = read_released(write_released(tmp_path, INDEX, {0: USERS, 1: USERS}), "toy")
    assert refusal(dataset.block, stage) == f"stage={stage}: toy has stages 1 to 2"


def test_a_broken_block_leaves_the_others_readable(tmp_path):
    dataset = read_released(write_released(tmp_path, INDEX, {0: USERS, 1: "{"}), "toy")
    assert dataset.has(2)
    assert dataset.block(1).users == ("ann", "bob")
    assert f"{tmp_path / 'toy.all.block_1.json'}:1:2: not valid JSON" in refusal(dataset.block, 2)


class TestFolder:
    def test_a_missing_folder_is_named(self, tmp_path):
        message = refusal(read_released, tmp_path / "none", "toy")
        assert message.startswith(f"dataset.path={tmp_path / 'none'}: no such folder")

    def test_a_file_in_place_of_a_folder_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        assert f"{tmp_path / 'file'}: no such folder" in refusal(read_released, tmp_path / "file", "toy")

    def test_a_folder_without_blocks_is_named(self, tmp_path):
        write_released(tmp_path, INDEX, {})
        (tmp_path / "toy.all.block_x.json").touch()
        message = refusal(read_released, tmp_path, "toy")
        assert message == f"dataset.path={tmp_path}: no file is named *.all.block_<b>.json"

    def test_a_missing_index_is_named(self, tmp_path):
        (write_released(tmp_path, INDEX, {0: USERS}) / "toy.index.json").unlink()
        message = refusal(read_released, tmp_path, "toy")
        assert message == f"{tmp_path}: no file matches *.index*.json, the semantic IDs of the items"

    @pytest.mark.parametrize(("kind", "texts"), [("index", None), ("item", {})])
    def test_two_candidates_are_named(self, tmp_path, kind, texts):
        write_released(tmp_path, INDEX, {0: USERS}, texts)
        (tmp_path / f"other.{kind}.json").write_text("{}")
        message = refusal(read_released, tmp_path, "toy")
        assert f"(other.{kind}.json, toy.{kind}.json); keep one" in message

    def test_blocks_of_two_datasets_are_not_mixed(self, tmp_path):
        write_released(tmp_path, INDEX, {0: USERS, 1: USERS})
        (tmp_path / "shop.all.block_1.json").write_text("{}")
        both = "shop.all.block_1.json and toy.all.block_0.json"
        assert refusal(read_released, tmp_path, "toy").startswith(f"{tmp_path}: {both} are of different datasets")

    def test_a_defect_of_the_index_is_told_when_the_dataset_opens(self, tmp_path):
        write_released(tmp_path, {"i0": 5}, {0: USERS})
        assert f"{tmp_path / 'toy.index.json'}: item 'i0' has no semantic ID" in refusal(read_released, tmp_path, "toy")


class TestBlockFile:
    def test_cut_in_half(self, tmp_path):
        whole = json.dumps(USERS)
        assert block_refusal(tmp_path, whole[: len(whole) // 2]).startswith(":1:")

    def test_not_utf8(self, tmp_path):
        folder = write_released(tmp_path, INDEX, {0: USERS})
        path = folder / "toy.all.block_0.json"
        path.write_bytes(path.read_bytes().replace(b"bob", b"b\xf6b"))
        place = path.read_bytes().index(b"\xf6")
        assert refusal(read_released(folder, "toy").block, 1) == f"{path}: not UTF-8 text at byte {place}"

    def test_no_user(self, tmp_path):
        assert block_refusal(tmp_path, {}) == ": the block holds no user"

    def test_a_list_of_users(self, tmp_path):
        assert "holds a list where one JSON object is needed" in block_refusal(tmp_path, [USERS])

    def test_the_lists_without_users(self, tmp_path):
        assert "user 'previous_block' needs an object" in block_refusal(tmp_path, USERS["ann"])

    def test_a_user_given_twice(self, tmp_path):
        ann = json.dumps(USERS["ann"])
        assert "key 'ann' occurs twice" in block_refusal(tmp_path, f'{{"ann": {ann}, "ann": {ann}}}')

    def test_a_list_given_twice(self, tmp_path):
        twice = '{"ann": {"previous_block": [], "current_block": ["i0"], "current_block": ["i1"]}}'
        assert "key 'current_block' occurs twice" in block_refusal(tmp_path, twice)

    @pytest.mark.parametrize("record", [["i0", "i1"], ["nothing"], "i0", 3, None])
    def test_a_user_that_is_no_object(self, tmp_path, record):
        message = block_refusal(tmp_path, USERS | {"cy": record})
        assert message == ": user 'cy' needs an object with 'previous_block' and 'current_block'"

    @pytest.mark.parametrize("key", ["previous_block", "current_block"])
    def test_a_missing_list(self, tmp_path, key):
        record = {k: v for k, v in USERS["ann"].items() if k != key}
        assert f"user 'cy': '{key}' is missing" in block_refusal(tmp_path, USERS | {"cy": record})
        other = block_refusal(tmp_path, USERS | {"cy": {}})
        assert "user 'cy': 'previous_block' is missing" in other

    @pytest.mark.parametrize("key", ["previous_block", "current_block"])
    @pytest.mark.parametrize("value", ["i0", 3, None, {"i0": 1}])
    def test_a_list_that_is_none(self, tmp_path, key, value):
        message = block_refusal(tmp_path, USERS | {"cy": USERS["ann"] | {key: value}})
        assert message.startswith(f": user 'cy': '{key}' is not a list")

    @pytest.mark.parametrize("key", ["previous_block", "current_block"])
    def test_an_item_without_a_semantic_id(self, tmp_path, key):
        message = block_refusal(tmp_path, USERS | {"cy": USERS["ann"] | {key: ["i0", "ghost", "ghoul"]}})
        assert message == f": user 'cy': item 'ghost' in '{key}' has no semantic ID in the index file"

    @pytest.mark.parametrize("item", [3, 3.5, True, None, ["i0"], {"i0": ["i0"] * 2000}])
    def test_an_item_that_is_no_text(self, tmp_path, item):
        message = block_refusal(tmp_path, USERS | {"cy": USERS["ann"] | {"current_block": ["i0", item]}})
        kind = type(item).__name__
        assert message == f": user 'cy': entry 2 of 'current_block' is a {kind}; item ids are strings"

    def test_a_user_without_current_events(self, tmp_path):
        message = block_refusal(tmp_path, USERS | {"cy": USERS["ann"] | {"current_block": []}})
        assert message.startswith(": user 'cy' has no events in 'current_block'")

    def test_a_user_named_with_odd_characters_stays_on_one_line(self, tmp_path):
        assert "user 'a\\nb' needs" in block_refusal(tmp_path, {"a\nb": 3})


def test_items_are_visible_from_their_first_event_on(tmp_path):
    users = {"ann": {"previous_block": ["i2"], "current_block": ["i0", "i0", "i2"]}}
    write_released(tmp_path, INDEX, {0: users, 1: USERS})
    dataset = hiding_unseen(read_released(tmp_path, "shop"))
    first, second = dataset.catalog_at(1), dataset.catalog_at(2)
    assert first.visible.tolist() == [True, False, True, False, False]
    assert second.visible.tolist() == [True, True, True, True, True]
    assert dataset.catalog_at(2) is second
    assert dataset.about["recommended"] == "visible"


def test_a_stage_that_is_missing_hides_what_is_visible(tmp_path):
    dataset = hiding_unseen(read_released(write_released(tmp_path, INDEX, {1: USERS}), "shop"))
    assert "block_0.json" in refusal(dataset.catalog_at, 2)
