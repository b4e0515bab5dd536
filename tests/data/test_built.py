import json
import time

import numpy as np
import polars as pl
import pytest
from built_worlds import FIGURES_OF_IDS, built, codes_of, new_items, seal, write_built, write_ids, write_stages
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import sid_texts, write_released

from peso_cli.data.blocks import read_released
from peso_cli.data.built import read_built
from peso_cli.data.open import open_dataset
from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids.store import write_appended

STAGES = [
    {"ann": ["p", "q", "p"], "bob": ["r"], "cy": ["q", "r"]},
    {"dee": ["s", "p"], "bob": ["s", "r"]},
    {"bob": ["t"], "ann": ["p", "s"], "dee": ["q"]},
]
ITEMS = [["p", "q", "r"], ["s"], ["t"]]


def users_of(dataset, stage):
    """Each user's previous and current item ids, in the block's order."""
    block, items = dataset.block(stage), np.array(dataset.catalog.items, dtype=object)
    places = zip(block.users, block.starts[:-1], block.current, block.starts[1:], strict=True)
    return {u: (items[block.events[s:c]].tolist(), items[block.events[c:e]].tolist()) for u, s, c, e in places}


def released_blocks(stages):
    """What the released layout holds for the same events, made user by user."""
    past, blocks = {}, {}
    for number, stage in enumerate(stages):
        blocks[number] = {
            user: {"previous_block": list(past.get(user, [])), "current_block": list(events)}
            for user, events in stage.items()
        }
        for user, events in stage.items():
            past.setdefault(user, []).extend(events)
    return blocks


def refusal(root, error=InputError, read=None, **choice):
    """The one line with which the folder, or the block of stage `read`, is refused."""
    with pytest.raises(error) as caught:
        read_built(built(root, **choice)).block(read)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path, change, stage=None):
    """Change a table; with a stage its manifest is told."""
    change(pl.read_parquet(path)).write_parquet(path)
    if stage:
        seal(path.parent, stage)


@pytest.fixture
def root(tmp_path):
    texts = {"p": {"title": "  A   pen\n", "brand": "B"}, "q": {"title": " "}, "s": {"description": "long"}}
    return write_built(tmp_path / "toy", STAGES, texts)


def test_blocks_hold_the_users_of_their_stage_with_all_their_events(root):
    dataset = read_built(built(root))
    assert (dataset.name, dataset.stages) == ("toy", 3)
    assert [dataset.has(stage) for stage in range(5)] == [False, True, True, True, False]
    assert users_of(dataset, 3) == {
        "bob": (["r", "s", "r"], ["t"]),
        "ann": (["p", "q", "p"], ["p", "s"]),
        "dee": (["s", "p"], ["q"]),
    }
    assert list(users_of(dataset, 3)) == ["bob", "ann", "dee"]
    assert users_of(dataset, 1) == {user: ([], events) for user, events in STAGES[0].items()}
    block = dataset.block(2)
    assert (block.events.dtype, block.starts.dtype, block.current.dtype) == (np.int32, np.int64, np.int64)


def test_the_catalog_has_the_stages_items_in_turn_their_codes_and_tidy_titles(root):
    catalog = read_built(built(root)).catalog
    assert catalog.items == tuple("pqrst")
    assert catalog.codes.tolist() == list(codes_of("pqrst").values())
    assert catalog.codes.dtype == np.int32
    assert catalog.titles == {"p": "A pen"}


def test_levels_have_their_declared_sizes_not_those_in_use(tmp_path):
    root = write_stages(tmp_path, STAGES)
    write_ids(root, STAGES, sizes=(16, 8))
    dataset = read_built(built(root))
    assert dataset.catalog.level_sizes == (16, 8)
    assert dataset.about == {"recommended": "visible", "fit_on": "stage_1"}


def test_items_are_visible_from_their_first_stage_on(root):
    dataset = read_built(built(root))
    assert [dataset.visible(stage).sum() for stage in (1, 2, 3)] == [3, 4, 5]
    assert [len(dataset.catalog_at(stage).sids) for stage in (1, 2, 3)] == [3, 4, 5]


def test_with_all_items_those_of_appended_stages_are_still_hidden_before(tmp_path):
    root = write_stages(tmp_path, STAGES, built=2)
    write_ids(root, STAGES)
    dataset = read_built(built(root, catalog="all"))
    assert [dataset.visible(stage).sum() for stage in (1, 2, 3)] == [4, 4, 5]
    assert dataset.about["recommended"] == "all"


def test_an_appended_stage_leaves_earlier_stages_as_they_are(tmp_path):
    # One level holds the codes of all items, so that both have the same declared size.
    codes = {item: [n] for n, item in enumerate("pqrst")}
    short, long = tmp_path / "short", tmp_path / "long"
    for root, stages in ((short, STAGES[:2]), (long, STAGES)):
        write_stages(root, stages, built=2)
        write_ids(root, stages, codes, sizes=(5,))
    for kind in ("visible", "all"):
        before, after = (read_built(built(root, catalog=kind)) for root in (short, long))
        for stage in (1, 2):
            assert before.block(stage).digest == after.block(stage).digest
            assert before.catalog_at(stage).digest == after.catalog_at(stage).digest


def test_a_sample_is_taken_of_a_built_dataset_too(root):
    dataset = open_dataset(built(root, sample_users=1))
    assert len(dataset.block(1).users) == 1
    assert dataset.visible(1).tolist() == [True] * 3 + [False] * 2


users = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=3)
stages_of_events = st.lists(
    st.dictionaries(users, st.lists(st.sampled_from(["0", "a b", "ü", "z" * 20]), min_size=1, max_size=5), min_size=1),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(stages_of_events)
def test_parquet_and_json_of_the_same_interactions_load_alike(tmp_path_factory, stages):
    folder = tmp_path_factory.mktemp("both")
    codes = codes_of([item for items in new_items(stages) for item in items])
    parquet = read_built(built(write_built(folder / "parquet", stages)))
    index = {item: sid_texts(row) for item, row in codes.items()}
    table = read_released(write_released(folder / "json", index, released_blocks(stages)), "toy")
    assert parquet.catalog.items == table.catalog.items
    assert parquet.catalog.codes.tolist() == table.catalog.codes.tolist()
    assert parquet.catalog.level_sizes == table.catalog.level_sizes
    for stage in range(1, len(stages) + 1):
        one, other = parquet.block(stage), table.block(stage)
        assert one.users == other.users
        for column in ("events", "starts", "current"):
            assert getattr(one, column).tolist() == getattr(other, column).tolist()
        assert one.digest == other.digest


class TestSemanticIDs:
    def test_none_there(self, tmp_path):
        root = write_stages(tmp_path / "toy", STAGES)
        message = refusal(root)
        assert message == (
            f"{root}: toy has no semantic IDs yet; run peso tokenize dataset=built dataset.name=toy dataset.path={root}"
        )

    def test_unfinished_ones_are_none(self, root):
        (root / "semantic_ids" / "rq_kmeans" / "tokenizer.json").unlink()
        assert "toy has no semantic IDs yet" in refusal(root)

    def test_one_of_several_is_to_be_named(self, root):
        other = {item: [n] for n, item in enumerate("tsrqp")}
        write_ids(root, STAGES, other, name="other")
        message = refusal(root)
        assert message.startswith("dataset.semantic_ids=null: ")
        assert message.endswith("holds several; give one of other, rq_kmeans")
        assert read_built(built(root, semantic_ids="other")).catalog.codes.tolist() == [[4], [3], [2], [1], [0]]
        assert "there are other, rq_kmeans (did you mean other?)" in refusal(root, semantic_ids="othr")

    def test_those_of_an_appended_stage_are_missing(self, tmp_path):
        root = write_stages(tmp_path / "toy", STAGES, built=2)
        folder = write_ids(root, STAGES[:2])
        assert refusal(root) == (
            f"stage 3 isn't tokenized yet in {folder}; "
            f"run peso tokenize dataset=built dataset.name=toy dataset.path={root} tokenizer.name=rq_kmeans"
        )
        # The codes without the mark that comes last are those of an append that was interrupted.
        write_appended(folder, 3, ["t"], np.array([[3, 0]], dtype=np.int32), FIGURES_OF_IDS)
        assert read_built(built(root)).catalog.codes[4].tolist() == [3, 0]
        (folder / "stage_3.json").unlink()
        assert refusal(root).startswith("stage 3 isn't tokenized yet")

    def test_a_file_of_theirs_has_changed(self, root):
        path = root / "semantic_ids" / "rq_kmeans" / "stage_1.parquet"
        rewrite(path, lambda t: t.reverse())
        assert refusal(root, RunError).startswith(f"{path}: changed since")

    @pytest.mark.parametrize(
        ("stages", "codes", "defect"),
        [
            ([{"u": "pq"}, {"u": "s"}, {"u": "t"}], None, "item 'r' has no codes"),
            ([{"u": "qpr"}, {"u": "s"}, {"u": "t"}], None, "has other items than the stages, or in disorder"),
            (
                STAGES,
                {i: [n] for n, i in enumerate("pqrst")},
                "item 't' has code 4 at level 1, a level of codes 0 to 3",
            ),
            (STAGES, {i: [n - 1] for n, i in enumerate("pqrst")}, "item 'p' has code -1 at level 1"),
        ],
    )
    def test_defects_of_the_codes(self, tmp_path, stages, codes, defect):
        root = write_stages(tmp_path, STAGES)
        folder = write_ids(root, stages, codes, sizes=(4,) if codes else None)
        assert refusal(root).startswith(f"{folder}: {defect}")


class TestFolder:
    def test_a_missing_folder(self, tmp_path):
        assert refusal(tmp_path / "none").startswith(f"dataset.path={tmp_path / 'none'}: no such folder")

    def test_an_unfinished_build(self, root):
        (root / "dataset.json").unlink()
        assert "holds no finished build (dataset.json is missing); run peso data build" in refusal(root)

    @pytest.mark.parametrize("stages", [None, 0, "two"])
    def test_a_manifest_without_stages(self, root, stages):
        (root / "dataset.json").write_text(json.dumps({"format": 1, "stages": stages}))
        assert f"'stages' is {stages!r}, which is no number of stages" in refusal(root)

    def test_a_stage_of_the_build_is_gone(self, root):
        (root / "stage_2" / "stage.json").unlink()
        message = refusal(root)
        assert message.startswith(f"{root / 'stage_2' / 'stage.json'}: missing, though dataset.json promises 3 stages")

    @pytest.mark.parametrize("name", ["items", "interactions"])
    def test_a_file_is_gone(self, root, name):
        path = root / "stage_2" / f"{name}.parquet"
        path.unlink()
        assert refusal(root, read=2) == f"{path}: no such file; build the dataset again"

    @pytest.mark.parametrize("name", ["items", "interactions"])
    def test_a_file_has_changed(self, root, name):
        path = root / "stage_2" / f"{name}.parquet"
        rewrite(path, lambda t: t.with_columns(pl.col("item") + "x"))
        message = refusal(root, RunError, read=2)
        assert message == f"{path}: changed since stage 2 was built; build the dataset again"

    def test_a_damaged_stage_leaves_those_before_it_readable(self, root):
        (root / "stage_3" / "interactions.parquet").write_bytes(b"")
        dataset = read_built(built(root))
        assert list(dataset.block(2).users) == ["dee", "bob"]
        with pytest.raises(RunError):
            dataset.block(3)

    def test_a_manifest_without_checksums(self, root):
        path = root / "stage_2" / "stage.json"
        path.write_text('{"format": 1}')
        assert refusal(root) == f"{path}: 'files' has no SHA-256 of items.parquet; build the dataset again"

    @pytest.mark.parametrize("content", [b"", b"no Parquet at all, but a text"])
    def test_not_a_parquet_file(self, root, content):
        path = root / "stage_2" / "interactions.parquet"
        path.write_bytes(content)
        seal(path.parent, 2)
        assert refusal(root, read=2).startswith(f"{path}: can't be read as Parquet (")

    def test_a_folder_named_like_a_pattern(self, tmp_path):
        root = write_built(tmp_path / "a[1]*", STAGES)
        assert read_built(built(root)).block(3).users == ("bob", "ann", "dee")

    @pytest.mark.parametrize(
        ("name", "change", "defect"),
        [
            ("items", lambda t: t.rename({"title": "name"}), "column 'title' is missing; it should hold String"),
            ("items", lambda t: t.with_columns(pl.lit(1).alias("item")), "column 'item' is Int32"),
            ("items", lambda t: t.with_columns(pl.lit(None, pl.String).alias("item")), "row 1 has no 'item'"),
            ("interactions", lambda t: t.drop("user"), "column 'user' is missing"),
            ("interactions", lambda t: t.clear(), "the stage holds no event"),
            ("interactions", lambda t: pl.concat([t, t.head(1)]), "the rows of user 'dee' don't stand together"),
            (
                "interactions",
                lambda t: t.with_columns(pl.lit("t").alias("item")),
                "item 't' isn't among the items of this",
            ),
            ("interactions", lambda t: t.with_columns(pl.lit(None, pl.String).alias("user")), "row 1 has no 'user'"),
        ],
    )
    def test_defects_that_the_checksums_vouch_for(self, root, name, change, defect):
        path = root / "stage_2" / f"{name}.parquet"
        rewrite(path, change, stage=2)
        assert refusal(root, read=2).startswith(f"{path}: {defect}")

    def test_an_item_listed_in_two_stages(self, root):
        rewrite(root / "stage_2" / "items.parquet", lambda t: t.with_columns(pl.lit("p").alias("item")), stage=2)
        assert "item 'p' is listed twice among the stages' items" in refusal(root)


def test_a_million_events_take_little_time(tmp_path):
    rng = np.random.default_rng(1)
    events, names = rng.integers(0, 20_000, 1_000_000), np.array([f"item-{n}" for n in range(20_000)], dtype=object)
    write_stages(tmp_path, [{"one": names.tolist()}])
    write_ids(tmp_path, [{"one": names.tolist()}], sizes=(5, 4000))
    path = tmp_path / "stage_1" / "interactions.parquet"
    owners = [f"user-{n // 10}" for n in range(1_000_000)]
    pl.DataFrame({"user": owners, "item": names[events], "timestamp": range(1_000_000)}).write_parquet(path)
    seal(path.parent, 1)
    start = time.perf_counter()
    block = read_built(built(tmp_path)).block(1)
    assert time.perf_counter() - start < 5
    assert (len(block.users), block.events.tolist()) == (100_000, events.tolist())
