"""Rows of users and items over the stages, negatives, cold start, and ranking the whole catalog."""

import numpy as np
import pytest
import torch
from worlds import block_of, catalog_of

from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import examples
from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.protocol import Scored
from peso_cli.methods.parts import Portion
from peso_cli.two_tower.models import FactorModel
from peso_cli.two_tower.parts import Interactions, Towers, TowersStart
from peso_cli.two_tower.ranking import TowerRanker
from peso_cli.two_tower.roster import Roster, roster
from peso_cli.two_tower.scores import Seen
from peso_cli.two_tower.weights import inherit

CODES = [[0, 0], [0, 1], [0, 1], [1, 0]]  # items 1 and 2 share a semantic ID


def dataset_of(blocks, codes=CODES, visible=None):
    return Dataset("made", catalog_of(codes), len(blocks), lambda s: blocks[s - 1], lambda s: True, visible=visible)


def test_what_a_stage_adds_comes_last():
    first = block_of({"b": ([], [0, 3, 0]), "a": ([], [3, 0, 3])}, stage=1)
    second = block_of({"c": ([], [1, 1, 3]), "a": ([3, 0, 3], [1, 2, 0])}, stage=2)
    seen = {1: [True, False, False, True], 2: [True] * 4}
    dataset = dataset_of([first, second], visible=lambda s: np.array(seen[s]))
    assert roster(dataset, 1).users == {"b": 0, "a": 1}
    assert roster(dataset, 1).items.tolist() == [0, 3]
    later = roster(dataset, 2)
    assert later.users == {"b": 0, "a": 1, "c": 2}
    assert later.items.tolist() == [0, 3, 1, 2]
    assert later.row_of.tolist() == [0, 2, 3, 1]
    pairs = later.interactions([Portion(examples(second, "train", 5), 0.5)])
    assert (pairs.users.tolist(), pairs.items.tolist(), pairs.weights.tolist()) == ([2, 1], [2, 2], [0.5, 0.5])
    assert roster(dataset_of([first]), 1).items.tolist() == [0, 1, 2, 3]


def seen_of(users, items, pairs):
    rows = np.array(pairs).T
    made = Roster({str(n): n for n in range(users)}, np.arange(items), np.arange(items))
    return Seen(made.matrix(Interactions(rows[0], rows[1], np.ones(len(pairs), np.float32))))


def test_negatives_are_spread_over_what_a_user_has_not_had():
    seen = seen_of(2, 5, [(0, 0), (0, 1), (1, 4)])
    torch.manual_seed(3)
    drawn = seen.negatives(np.array([0, 1] * 300), 20).reshape(-1, 2)
    assert set(drawn[:, 0]) == {2, 3, 4}
    assert set(drawn[:, 1]) == {0, 1, 2, 3}
    assert np.bincount(drawn[:, 0])[2:].min() > 60
    torch.manual_seed(3)
    assert np.array_equal(seen.negatives(np.array([0, 1] * 300), 20).reshape(-1, 2), drawn)


def test_a_user_who_had_everything_still_gets_a_negative():
    assert seen_of(1, 2, [(0, 0), (0, 1)]).negatives(np.array([0]), 20)[0] in (0, 1)


@pytest.mark.parametrize("cold_start", ["neighbours", "random"])
def test_new_rows_begin_at_their_known_neighbours_or_as_drawn(cold_start):
    model = FactorModel(3, 4, 2, 0.1)
    drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    previous = {"users": torch.tensor([[5.0, 5.0], [1.0, 3.0]]), "items": torch.tensor([[2.0, 0.0], [4.0, 2.0]])}
    # User 2 is new and had items 0, 1, 1 and, new itself, 2; item 2 was had by users 1 and 2, item 3 by nobody.
    trained = Interactions(np.array([2, 2, 2, 2, 1]), np.array([0, 1, 1, 2, 2]), np.ones(5, np.float32))
    inherit(TowersStart(model, previous, trained, cold_start))
    assert torch.equal(model.users[:2], previous["users"])
    assert torch.equal(model.items[:2], previous["items"])
    assert torch.equal(model.items[3], drawn["items"][3])
    if cold_start == "random":
        assert torch.equal(model.users[2], drawn["users"][2])
        assert torch.equal(model.items[2], drawn["items"][2])
    else:
        assert model.users[2].tolist() == pytest.approx([10 / 3, 4 / 3])
        assert model.items[2].tolist() == [1.0, 3.0]


VECTORS = torch.tensor([[1.0], [3.0], [4.0], [2.0]])


def ranker(seen=None, known=4, catalog=None):
    model = FactorModel(1, known, 1, 0.1).eval()
    with torch.no_grad():
        model.users[:], model.items[:] = torch.tensor([[1.0]]), VECTORS[:known]
        towers = model.towers().detached()
    row_of = np.array([n if n < known else -1 for n in range(4)])
    made = Roster({"u": 0}, np.arange(known), row_of)
    return TowerRanker(model, towers, made, catalog or catalog_of(CODES), 5, seen)


def test_items_are_ranked_by_score_and_semantic_ids_by_their_best_item():
    found = ranker().rank([np.array([0], np.int32)], 3, names=["u"])
    assert found.items.tolist() == [[2, 1, 3]]
    assert found.scores.tolist() == [[4.0, 3.0, 2.0]]
    assert found.rows.tolist() == [[1, 2, 0]]  # rows of (0, 0), (0, 1), (1, 0)


def test_what_a_user_had_and_what_the_history_holds_is_left_out():
    seen = seen_of(1, 4, [(0, 2)])
    found = ranker(seen).rank([np.array([3], np.int32)], 3, names=["u"])
    assert found.items.tolist() == [[1, 0, -1]]
    assert found.rows.tolist() == [[1, 0, -1]]
    stranger = ranker(seen).rank([np.array([3], np.int32)], 3, names=["nobody"])
    assert stranger.items.tolist() == [[2, 1, 0]]
    assert np.array_equal(ranker(seen).rank([np.array([3], np.int32)], 3).items, stranger.items)


def test_only_visible_items_that_the_model_knows_are_recommended():
    shown = catalog_of(CODES).seen(np.array([True, True, False, True]))
    assert ranker().within(shown).rank([np.array([], np.int32)], 3, names=["u"]).items.tolist() == [[1, 3, 0]]
    found = ranker(known=3).rank([np.array([3, 0], np.int32)], 2, names=["u"])
    assert found.items.tolist() == [[2, 1]]
    with pytest.raises(InputError, match="the model knows 2 distinct semantic IDs, fewer than 3 recommendations"):
        ranker(known=3).rank([np.array([0], np.int32)], 3, names=["u"])


NOTHING, ASKED = [np.array([], np.int32)], np.array([[2, 0, -1, 1]])


@pytest.mark.parametrize(
    ("had", "scores"),
    [([], [2, 1, -np.inf, 4]), ([(0, 2)], [2, 1, -np.inf, 3]), ([(0, 1), (0, 2)], [2, 1, -np.inf, -np.inf])],
)
def test_a_semantic_id_has_the_score_of_its_best_item_that_is_left(had, scores):
    assert ranker(seen_of(1, 4, had) if had else None).score(NOTHING, ASKED, ["u"]).tolist() == [scores]


def test_semantic_ids_of_unknown_items_have_no_score():
    assert ranker(known=3).score(NOTHING, ASKED, ["u"]).tolist() == [[-np.inf, 1, -np.inf, 4]]


@pytest.mark.parametrize(
    ("had", "known", "items", "places"),
    [
        ([], 4, [2, 1, 3, 0], [0, 0, 1, 3]),
        ([(0, 2)], 4, [1, 2, 3, 0], [0, 0, 1, 3]),
        ([], 2, [1, 2, 3, 0], [0, 0, 1, 3]),
    ],
)
def test_the_items_of_a_semantic_id_stand_in_the_order_of_their_scores(had, known, items, places):
    """What the user had, or what the model doesn't know, comes last; the third row is none."""
    seen = seen_of(1, known, had) if had else None
    found = ranker(seen, known).spread(NOTHING, np.array([[1, 2, -1, 0]]), ["u"])
    assert [each.tolist() for each in found] == [[items], [places]]


def test_a_list_of_items_is_no_longer_than_that_of_semantic_ids_and_filled_up():
    assert ranker().spread(NOTHING, np.array([[1, 2]]), ["u"])[0].tolist() == [[2, 1]]
    assert ranker().spread(NOTHING, np.array([[2, -1]]), ["u"])[0].tolist() == [[3, -1]]
    shown = catalog_of(CODES).seen(np.array([True, True, False, True]))
    assert ranker().within(shown).spread(NOTHING, np.array([[1, -1]]), ["u"])[0].tolist() == [[1, -1]]


def test_vectors_that_are_no_numbers_rank_nothing():
    broken = ranker()
    broken.towers.items[2] = float("nan")
    with pytest.raises(RunError, match="1 of 1 users have scores that are not finite numbers"):
        broken.rank(NOTHING, 3, names=["u"])


def test_figures_of_items_are_of_the_list_of_items():
    block = block_of({"u": ([], [0, 3, 1])}, stage=1)
    dataset = dataset_of([block])
    users = examples(block, "test", 5)
    found = ranker().rank(users.histories(), 3, names=["u"])
    scored = Scored(dataset, 1, "test", users, found.rows, found.scores, found.items)
    summary = scored.summary()
    # Item 2 comes first and shares the target's semantic ID; the target itself, item 1, is second.
    assert (summary["recall@1"], summary["item"]["recall@1"], summary["item"]["recall@3"]) == (1.0, 0.0, 1.0)
    assert summary["item"]["ndcg@3"] == pytest.approx(1 / np.log2(3))
    assert [column.tolist() for column in scored.places] == [[2], [1]]
    assert scored.listed.tolist() == [[2, 1, 3]]


def test_towers_without_a_graph_carry_none():
    users = torch.ones(1, 1, requires_grad=True)
    assert not Towers(users, users).detached().users.requires_grad
