import json

import numpy as np
import pytest
from built_worlds import built, write_built
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import block_of, sid_texts, write_released

from peso_cli.config.compose import compose
from peso_cli.data import released
from peso_cli.data.blocks import Dataset, read_released
from peso_cli.data.built import read_built
from peso_cli.data.open import open_dataset
from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids.catalog import Catalog

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=4)
STAGES = [{"ann": ["p", "q", "p"], "bob": ["r"]}, {"bob": ["p", "s"]}]


def toy(blocks, items=("a", 'b"', "ü"), titles=None) -> Dataset:
    """A dataset of blocks by stage."""
    codes = np.array([[n, n % 2] for n in range(len(items))], dtype=np.int32)
    catalog = Catalog(tuple(items), codes, titles or {})
    return Dataset("toy", catalog, max(blocks), lambda s: block_of(blocks[s], s), lambda s: s in blocks)


def check_equal(one, other):
    """Two datasets hold the same stages and the same catalog."""
    assert one.stages == other.stages
    assert (one.catalog.items, one.catalog.titles) == (other.catalog.items, other.catalog.titles)
    assert one.catalog.codes.tolist() == other.catalog.codes.tolist()
    for stage in range(1, one.stages + 1):
        assert one.has(stage) == other.has(stage)
        if one.has(stage):
            assert one.block(stage).users == other.block(stage).users
            for column in ("events", "starts", "current"):
                assert getattr(one.block(stage), column).tolist() == getattr(other.block(stage), column).tolist()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_exported_is_read_back_equal(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("round")
    items = data.draw(st.lists(texts, min_size=1, max_size=4, unique=True))
    lists = st.lists(st.sampled_from(items), max_size=4)
    record = st.fixed_dictionaries({"previous_block": lists, "current_block": lists.filter(bool)})
    blocks = data.draw(st.dictionaries(st.integers(0, 3), st.dictionaries(texts, record, min_size=1), min_size=1))
    titles = data.draw(st.dictionaries(st.sampled_from(items), st.fixed_dictionaries({"title": texts})))
    index = {item: sid_texts(data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9)))) for item in items}
    first = read_released(write_released(folder / "first", index, blocks, titles), "toy")
    released.write_released(first, folder / "second", "again")
    second = read_released(folder / "second", "toy")
    check_equal(first, second)
    for number, block in blocks.items():
        assert json.loads((folder / "second" / f"again.all.block_{number}.json").read_text()) == block
    assert (folder / "second" / "again.item.json").exists() == bool(first.catalog.titles)


@pytest.mark.parametrize("name", ["amazon_games", "amazon_instruments"])
def test_the_released_datasets_come_out_as_they_went_in(shared, tmp_path, name):
    source = shared / "data" / name
    released.write_released(read_released(source, name), tmp_path / "new", "copy")
    blocks = sorted(source.glob("*.all.block_*.json"))
    assert len(list((tmp_path / "new").iterdir())) == len(blocks) + 1
    (index,) = source.glob("*.index.*.json")
    pairs = [(path, f"copy.all.{path.name.split('.all.')[1]}") for path in blocks] + [(index, "copy.index.json")]
    for path, new in pairs:
        # As text, so that the order of the keys counts.
        one, other = (json.dumps(json.loads(p.read_text())) for p in (path, tmp_path / "new" / new))
        assert one == other


def test_a_built_dataset_comes_out_with_titles_and_the_same_blocks(tmp_path):
    root = write_built(tmp_path / "built", STAGES, {"p": {"title": "A  pen "}, "s": {"brand": "no title"}})
    dataset = read_built(built(root))
    released.write_released(dataset, tmp_path / "new", "toy")
    check_equal(dataset, read_released(tmp_path / "new", "toy"))
    assert json.loads((tmp_path / "new" / "toy.item.json").read_text()) == {"p": {"title": "A pen"}}


def test_the_generated_world_comes_out(tmp_path):
    settings = ("dataset=synthetic", "dataset.users=40", "dataset.items=60", "dataset.stages=3")
    dataset = open_dataset(compose(settings).config.dataset)
    released.write_released(dataset, tmp_path, "world")
    check_equal(dataset, read_released(tmp_path, "world"))


def test_memory_holds_no_block_that_is_written(tmp_path):
    dataset = toy({1: {"u": ([], [0])}, 2: {"u": ([0], [1])}})
    released.write_released(dataset, tmp_path, "toy")
    assert dataset._blocks == {}


@pytest.mark.parametrize("name", ["x.all.block_0.json", "x.index.epoch9.json", "x.item.json"])
def test_a_folder_with_a_dataset_is_left_alone(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="is there already; give a folder that holds no dataset"):
        released.write_released(toy({1: {"u": ([], [0])}}), tmp_path, "toy")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("parent", ["file/in", "file/in/deeper", "file"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, parent):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"can't be made|is a file; give a folder"):
        released.write_released(toy({1: {"u": ([], [0])}}), tmp_path / parent, "toy")


@pytest.mark.parametrize("name", ["a/b", "a.index"])
def test_a_name_that_could_not_be_read_back_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="can't begin the names of released files"):
        released.write_released(toy({1: {"u": ([], [0])}}), tmp_path, name)


@pytest.mark.parametrize("error", [InputError("stage 2 is broken"), KeyboardInterrupt(), OSError(28, "No space left")])
@pytest.mark.parametrize("there", [False, True])
def test_a_failed_export_leaves_nothing(tmp_path, error, there):
    dataset, folder = toy({1: {"u": ([], [0])}, 2: {"u": ([0], [1])}}), tmp_path / "new"
    first = dataset.read

    def read(stage):
        if stage == 2:
            raise error
        return first(stage)

    dataset.read = read
    if there:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    expected = RunError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        released.write_released(dataset, folder, "toy")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == (["notes.txt"] if there else [])
    assert folder.exists() == there


def test_a_block_without_users_is_refused(tmp_path):
    with pytest.raises(InputError, match="stage 1 of toy holds no user"):
        released.write_released(toy({1: {}}), tmp_path / "new", "toy")
    assert not (tmp_path / "new").exists()
