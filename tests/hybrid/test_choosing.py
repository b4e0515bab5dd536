import json
from dataclasses import replace

import numpy as np
import pytest

from peso_cli.artifacts import Artifact
from peso_cli.errors import RunError
from peso_cli.hybrid.choosing import FILE, choose, needs_exact, read_choice, write_choice
from peso_cli.hybrid.fusions import Fusion, pool_of, with_exact
from peso_cli.hybrid.settings import Hybrid, PartOfHybrid

PART = PartOfHybrid("tiny", "single", ())
SETTINGS = Hybrid("hybrid", "hybrid", PART, PART, 3, "reciprocal_rank", 1.0, 4)


def pool(first, second):
    lists = tuple(np.array(each) for each in (first, second))
    made = pool_of(lists, tuple(-np.cumsum(np.ones(each.shape), axis=1) for each in lists))
    return with_exact(made, made.scores[0], made.scores[1])


def test_the_weight_with_the_best_lists_is_chosen():
    """Target 1 is second in both lists: only together is it first."""
    made = pool([[2, 1], [4, 1]], [[3, 1], [5, 1]])
    choice = choose(made, np.array([1, 1]), SETTINGS, 2)
    # 1 has 1/3 at any weight, 2 has w/2, 3 has (1 - w)/2: at 1/2 alone both are below it.
    assert choice.fusion == Fusion("reciprocal_rank", 0.5, 1.0)
    assert (choice.by, choice.users) == ("ndcg@2", 2)
    assert choice.best["reciprocal_rank"]["recall@1"] == 1
    assert choice.best["generative"] == {**choice.best["generative"], "weight": 1.0, "recall@1": 0, "recall@2": 1}
    assert choice.best["two_tower"]["weight"] == 0


@pytest.mark.parametrize(("target", "weight"), [(2, 1.0), (3, 0.0)])
def test_where_a_part_alone_is_best_it_stays_alone(target, weight):
    choice = choose(pool([[2, 1]], [[3, 1]]), np.array([target]), SETTINGS, 2)
    assert choice.fusion == Fusion("alone", weight, 1.0)


def test_of_equal_ones_the_first_is_chosen_and_targets_that_are_not_there_are_missed():
    choice = choose(pool([[2, -1]], [[-1, -1]]), np.array([-1]), SETTINGS, 2)
    assert choice.fusion == Fusion("alone", 1.0, 1.0)
    assert choice.best["reciprocal_rank"]["ndcg@2"] == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fusion", ["chosen", "reciprocal_rank", "calibrated", "rescored"])
def test_no_choice_is_below_a_part_on_those_it_was_made_on(fusion, seed):
    rng = np.random.default_rng(seed)
    first, second = (np.stack([rng.permutation(12)[:6] for _ in range(40)]) for _ in range(2))
    made = pool(first, second)
    choice = choose(made, rng.integers(0, 12, 40), replace(SETTINGS, fusion=fusion), 4)
    best = {name: found["ndcg@4"] for name, found in choice.best.items()}
    kinds = {"reciprocal_rank", "calibrated", "rescored"} if fusion == "chosen" else {fusion}
    assert best.keys() == {"generative", "two_tower"} | kinds
    assert choice.fusion.kind in kinds | {"alone"}
    name = {"alone": "generative" if choice.fusion.weight else "two_tower"}.get(choice.fusion.kind, choice.fusion.kind)
    assert best[name] == max(best.values())


def test_only_rescoring_needs_exact_scores():
    found = {kind: needs_exact(replace(SETTINGS, fusion=kind)) for kind in ("chosen", "rescored", "calibrated")}
    assert found == {"chosen": True, "rescored": True, "calibrated": False}


def test_a_choice_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    made = pool(*(np.stack([rng.permutation(9)[:5] for _ in range(30)]) for _ in range(2)))
    choice = choose(made, rng.integers(0, 9, 30), replace(SETTINGS, fusion="calibrated"), 3)
    write_choice(Artifact(tmp_path), choice)
    assert read_choice(Artifact(tmp_path)) == choice


@pytest.mark.parametrize("text", ["{}", '{"fusion": 3}', "[1]", "{"])
def test_what_holds_no_choice_is_named(tmp_path, text):
    (tmp_path / "model").mkdir()
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunError, match=r"fusion\.json: .* --repair"):
        read_choice(Artifact(tmp_path))


def test_json_has_all_there_is_to_know(tmp_path):
    choice = choose(pool([[2, 1]], [[3, 1]]), np.array([2]), SETTINGS, 2)
    write_choice(Artifact(tmp_path), choice)
    assert json.loads((tmp_path / FILE).read_text())["fusion"]["kind"] == "alone"
