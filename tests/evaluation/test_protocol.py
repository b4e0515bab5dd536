import math

import numpy as np
import pyarrow.parquet
import pytest
from worlds import block_of, catalog_of

from peso_cli.config.schema import Decoding, Evaluation
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import examples
from peso_cli.errors import InputError
from peso_cli.evaluation.protocol import (
    Audience,
    Scored,
    audience_of,
    block_before,
    check_beams,
    user_examples,
    write_predictions,
)

# Rows of `sids` in lexicographic order: 0 is shared by i0, i2 and i5; 1 is i1's; 2 is i3's; 3 is shared by i4 and i6;
# 4 to 10 are those of i7 to i13.
CODES = [[0, 0], [0, 1], [0, 0], [1, 0], [1, 1], [0, 0], [1, 1], *([2, n] for n in range(7))]
CATALOG = catalog_of(CODES)
BEFORE = block_of({"here": ([], [1, 1, 1]), "gone": ([], [3, 3, 3])}, stage=1)
BLOCK = block_of(
    {
        "fresh": ([], [7, 7, 7, 3]),  # test: history 7 7 7, target i3
        "here": ([1, 1, 1], [7, 4, 2]),  # target i2, which shares its semantic ID
        "few": ([1], [3, 3]),
        "back": ([3], [8, 9, 6]),  # target i6
        "away": ([3, 3], [3, 5, 13]),  # target i13
    }
)
RANKED = np.array(
    [
        [2, 0, 1, 3, 4, 5, 6, 7, 8, 9],  # fresh: rank 1
        [1, 0, 2, 3, 4, 5, 6, 7, 8, 9],  # here: rank 2, places 2 to 4 of the items
        [0, 1, 2, -1, 4, 5, 6, 3, 8, 9],  # back: rank 8, places 10 and 11 of the items
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],  # away: missed
    ]
)
SCORES = np.tile(-np.arange(10, dtype=np.float32) / 8, (4, 1))


def dataset_of(before=BEFORE, ceiling=None):
    blocks = {2: BLOCK, **({1: before} if before else {})}
    return Dataset("toy", CATALOG, 2, blocks.__getitem__, blocks.__contains__, ceiling)


def scored_of(split="test", top=10, **more):
    dataset = dataset_of(**more)
    chosen = user_examples(dataset, 2, split, 20)
    return Scored(dataset, 2, split, chosen, RANKED[:, :top], SCORES[:, :top])


def gain(rank):
    return 1 / math.log2(rank + 1)


def test_users_with_enough_events_are_asked_once_each():
    found = user_examples(dataset_of(), 2, "test", 2)
    assert [BLOCK.users[row] for row in found.user] == ["fresh", "here", "back", "away"]
    assert found.target_items.tolist() == [3, 2, 6, 13]
    assert found.history_lengths.tolist() == [2, 2, 2, 2]
    assert user_examples(dataset_of(), 2, "valid", 20).target_items.tolist() == [7, 4, 9, 5]


def test_ranks_of_semantic_ids():
    assert scored_of().ranks.tolist() == [1, 2, 8, 0]


def test_the_figures_are_those_worked_out_by_hand():
    summary = scored_of().summary()
    assert summary["kind"] == "sid"
    assert summary["users"] == 4
    assert summary["recall@1"] == 1 / 4
    assert summary["recall@5"] == 2 / 4
    assert summary["recall@10"] == 3 / 4
    assert summary["ndcg@5"] == pytest.approx((gain(1) + gain(2)) / 4)
    assert summary["ndcg@10"] == pytest.approx((gain(1) + gain(2) + gain(8)) / 4)


def test_the_figures_of_items_share_a_semantic_ids_hit():
    item = scored_of().summary()["item"]
    assert item["recall@1"] == 1 / 4
    assert item["recall@5"] == pytest.approx((1 + 1) / 4)  # i2 is one of three at places 2, 3 and 4
    assert item["recall@10"] == pytest.approx((1 + 1 + 1 / 2) / 4)  # i6 is one of two at places 10 and 11
    assert item["ndcg@5"] == pytest.approx((gain(1) + (gain(2) + gain(3) + gain(4)) / 3) / 4)
    assert item["ndcg@10"] == pytest.approx((gain(1) + (gain(2) + gain(3) + gain(4)) / 3 + gain(10) / 2) / 4)


def test_popularity_is_that_of_the_stages_training_targets():
    # Targets: i7 twice (fresh), i7 (here), i8 (back), i3 (away); then the rest in order: rows 4, 2, 5, 0, 1, 3, ...
    popularity = scored_of().summary()["popularity"]
    assert examples(BLOCK, "train", 1).target_items.tolist() == [7, 7, 7, 8, 3]
    assert popularity["recall@1"] == 0
    assert popularity["recall@5"] == 2 / 4  # fresh's i3 at rank 2, here's row 0 at rank 4
    assert popularity["recall@10"] == 3 / 4
    assert popularity["ndcg@10"] == pytest.approx((gain(2) + gain(4) + gain(6)) / 4)
    # As items: i7, i3, i8, then i0, i2, i5 at places 4 to 6, i1, then i4 and i6 at places 8 and 9.
    assert popularity["item"]["recall@5"] == pytest.approx((1 + 2 / 3) / 4)
    assert popularity["item"]["recall@10"] == pytest.approx(3 / 4)


def test_groups_split_the_users():
    scored = scored_of()
    assert scored.groups.tolist() == ["new", "returning", "dormant", "dormant"]
    groups = scored.summary()["groups"]
    assert {name: group["users"] for name, group in groups.items()} == {"new": 1, "returning": 1, "dormant": 2}
    assert groups["new"]["recall@1"] == 1
    assert groups["returning"]["ndcg@5"] == pytest.approx(gain(2))
    assert groups["dormant"]["recall@10"] == 1 / 2


def test_without_the_stage_before_those_who_came_before_are_unknown():
    groups = scored_of(before=None).summary()["groups"]
    assert {name: group["users"] for name, group in groups.items()} == {"new": 1, "unknown": 3}


def test_the_block_before():
    dataset = dataset_of()
    assert block_before(dataset, 2) is BEFORE
    assert block_before(dataset, 1) is None
    assert block_before(dataset_of(before=None), 2) is None


def test_the_ceiling_is_that_of_the_test_users():
    def ceiling(stage):
        return {"recall@10": stage / 10}

    assert scored_of(ceiling=ceiling).summary()["ceiling"] == {"recall@10": 0.2}
    assert scored_of(top=7, ceiling=ceiling).summary()["ceiling"] == {}
    assert "ceiling" not in scored_of("valid", ceiling=ceiling).summary()
    assert "ceiling" not in scored_of().summary()


@pytest.mark.parametrize(("top", "at"), [(1, [1]), (5, [1, 5]), (7, [1, 5, 7]), (10, [1, 5, 10])])
def test_the_length_of_the_lists_is_the_largest_k(top, at):
    names = {"users", *(f"{kind}@{k}" for kind in ("recall", "ndcg") for k in at)}
    whole, summary = scored_of().summary(), scored_of(top=top).summary()
    parts = {"": summary, "item": summary["item"], "popularity": summary["popularity"]}
    parts |= {"popularity item": parts["popularity"].pop("item"), **summary["groups"]}
    for what, figures in parts.items():
        assert {n for n in figures if n == "users" or "@" in n} == names, what
    assert {n: whole[n] for n in names & {*whole}} == {n: summary[n] for n in names & {*whole}}
    hits = (scored_of().ranks > 0) & (scored_of().ranks <= top)
    assert summary[f"recall@{top}"] == hits.mean()


def test_predictions_hold_lists_of_any_length(tmp_path):
    write_predictions(tmp_path / "predictions.parquet", scored_of(top=7))
    rows = pyarrow.parquet.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert {(len(row["items"]), len(row["scores"])) for row in rows} == {(7, 7)}
    assert [row["rank"] for row in rows] == [1, 2, None, None]
    assert [row["position"] for row in rows] == [1, 2, None, None]


def test_predictions_are_one_row_a_user(tmp_path):
    write_predictions(tmp_path / "deep" / "predictions.parquet", scored_of())
    table = pyarrow.parquet.read_table(tmp_path / "deep" / "predictions.parquet")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["predictions.parquet"]
    rows = table.to_pylist()
    assert [row["user"] for row in rows] == ["fresh", "here", "back", "away"]
    assert {row["stage"] for row in rows} == {2}
    assert [row["target"] for row in rows] == ["i3", "i2", "i6", "i13"]
    assert [row["rank"] for row in rows] == [1, 2, 8, None]
    assert [row["history_length"] for row in rows] == [3, 5, 3, 4]
    assert [row["group"] for row in rows] == ["new", "returning", "dormant", "dormant"]
    # The items that share the target's semantic ID begin behind those of all ranked before it.
    assert [row["position"] for row in rows] == [1, 2, 10, None]
    assert [row["sharing"] for row in rows] == [1, 3, 2, 1]
    assert rows[0]["items"] == ["i3", "i0", "i1", "i4", "i7", "i8", "i9", "i10", "i11", "i12"]
    assert rows[2]["items"][2:5] == ["i3", None, "i7"]  # a sequence that no item carries
    assert rows[1]["scores"] == SCORES[1].tolist()


def test_a_semantic_id_is_shown_by_its_first_item():
    assert CATALOG.first_items.tolist() == [0, 1, 3, 4, 7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize(
    ("beams", "k", "part"),
    [
        (9, 10, "decoding.beams=9: must be at least 10"),
        (19, 20, "at least 20"),
        (20, 12, "has 11 distinct semantic IDs"),
    ],
)
def test_a_search_that_can_not_return_enough_is_refused(beams, k, part):
    with pytest.raises(InputError, match=part):
        check_beams(Decoding(beams, "trie", "vocabulary"), CATALOG, k)


def test_a_search_that_just_returns_enough_will_do():
    check_beams(Decoding(10, "trie", "vocabulary"), CATALOG, 10)
    check_beams(Decoding(11, "trie", "vocabulary"), CATALOG, 11)


# Whom a model is scored on


@pytest.mark.parametrize(
    ("protocol", "on", "split", "expected"),
    [
        ("in_stage", None, "test", Audience((2,), "test")),
        ("in_stage", (1, 3), "valid", Audience((1, 3), "valid")),
        ("matrix", None, "test", Audience((1, 2, 3), "test")),
        ("matrix", None, "valid", Audience((1, 2, 3), "valid")),
        ("next_stage", None, "test", Audience((3,), "next")),
    ],
)
def test_a_protocol_says_whom_a_model_is_scored_on(protocol, on, split, expected):
    assert audience_of(Evaluation(on, split, protocol), 2, 3) == expected


def test_nobody_comes_after_the_last_stage():
    assert audience_of(Evaluation(None, "test", "next_stage"), 3, 3).on == ()


def test_without_a_protocol_a_stage_is_scored_on_itself():
    assert audience_of(Evaluation(None, "test"), 2, 3) == Audience((2,), "test")


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(
    ("evaluation", "parts"),
    [
        (Evaluation((1, 2), "test", "matrix"), ["evaluation.on=[1, 2]", "evaluation=matrix", "evaluation=in_stage"]),
        (Evaluation((3,), "test", "next_stage"), ["evaluation.on=[3]", "next_stage", "give evaluation=in_stage"]),
        (Evaluation(None, "valid", "next_stage"), ["evaluation.split=valid", "next_stage", "leave it out"]),
    ],
)
def test_what_contradicts_the_protocol_is_refused(evaluation, parts, stage):
    with pytest.raises(InputError) as found:
        audience_of(evaluation, stage, 3)
    for part in parts:
        assert part in str(found.value)


# What comes next


def next_of(rows, before=BEFORE, visible=None):
    """The users of stage 2 before any update: here (i7 after i1), few (i3 after i1), back (i8 after i3), away (i3)."""
    blocks = {1: before, 2: BLOCK}
    hidden = None if visible is None else {1: visible, 2: np.ones(len(CATALOG.items), bool)}.__getitem__
    dataset = Dataset("toy", CATALOG, 2, blocks.__getitem__, blocks.__contains__, lambda stage: {}, hidden)
    chosen = user_examples(dataset, 2, "next", 20)
    return Scored(dataset, 2, "next", chosen, np.asarray(rows), np.zeros(np.shape(rows), np.float32))


def test_what_comes_next_is_asked_of_users_with_events_before_however_few():
    scored = next_of([[0, 1]] * 4)
    assert [BLOCK.users[row] for row in scored.examples.user] == ["here", "few", "back", "away"]
    assert [history.tolist() for history in scored.examples.histories()] == [[1, 1, 1], [1], [3], [3, 3]]
    assert scored.examples.target_items.tolist() == [7, 3, 8, 3]
    summary = scored.summary()
    assert (summary["users"], summary["left_out"]) == (4, 1)
    assert "ceiling" not in summary
    assert {name: group["users"] for name, group in summary["groups"].items()} == {"returning": 1, "dormant": 3}
    assert "left_out" not in scored_of().summary()


def test_popularity_of_what_comes_next_knows_only_the_stage_before():
    # Training targets: i1 (row 1) twice and i3 (row 2) once in stage 1; in stage 2, i7 would be the first.
    before = block_of({"here": ([], [1, 1, 0, 0]), "gone": ([], [3, 7, 7])}, stage=1)
    popularity = next_of([[0, 1]] * 4, before).summary()["popularity"]
    assert popularity["recall@1"] == 0
    assert popularity["recall@2"] == 2 / 4


def test_a_target_that_is_not_there_yet_is_missed_and_counts():
    visible = np.arange(14) < 8  # i8, the target of back, comes in with stage 2
    rows = [[4, 2], [2, 4], [-1, 4], [1, 2]]
    scored = next_of(rows, visible=visible)
    assert len(scored.catalog.sids) == 5
    assert scored.ranks.tolist() == [1, 1, 0, 2]
    summary = scored.summary()
    assert (summary["users"], summary["recall@2"], summary["item"]["recall@2"]) == (4, 3 / 4, 3 / 4)
    assert summary["popularity"]["recall@2"] < 1


def test_nobody_with_events_before_is_an_error():
    dataset = Dataset("toy", CATALOG, 2, lambda stage: block_of({"u": ([], [1, 2, 3])}), lambda stage: True)
    with pytest.raises(InputError, match="stage 2 of toy has no user with events both before it and in it"):
        user_examples(dataset, 2, "next", 20)
