import json

import numpy as np
import pytest

from peso_cli.data.blocks import block_from_lists, read_released
from peso_cli.evaluation.groups import GROUPS, user_groups


def block_of(stage, previous):
    """A block whose users have the given numbers of earlier events."""
    return block_from_lists(
        stage, {user: (np.arange(n, dtype=np.int32), np.arange(3, dtype=np.int32)) for user, n in previous.items()}
    )


def test_each_user_is_told_apart_in_the_order_of_the_block():
    before = block_of(2, {"back": 0, "gone": 4, "odd": 0})
    block = block_of(3, {"back": 3, "fresh": 0, "paused": 5, "odd": 0})
    # `odd` has no earlier events although the stage before knows it: without a history it counts as new.
    assert user_groups(block, before).tolist() == ["returning", "new", "dormant", "new"]


def test_without_the_stage_before_only_new_users_are_known():
    assert user_groups(block_of(3, {"a": 0, "b": 2}), None).tolist() == ["new", "unknown"]


def test_first_stage_is_all_new():
    assert set(user_groups(block_of(1, {"a": 0, "b": 0}), None)) == {"new"}


def test_group_counts_on_games_match_the_golden_statistics(shared):
    golden = json.loads((shared / "golden" / "stats.json").read_text())["Video_Games"]
    dataset = read_released(shared / "data" / "amazon_games", "amazon_games")
    for stage in range(1, 6):
        block = dataset.block(stage)
        before = dataset.block(stage - 1) if stage > 1 else None
        counts = {group: int((user_groups(block, before) == group).sum()) for group in GROUPS}
        users = golden[f"D{stage}"]["new_users_by"]
        assert counts["new"] == users["empty_previous_block"]
        assert counts["returning"] == len(block.users) - users["not_in_the_released_block_just_before"]
        assert counts["returning"] + counts["dormant"] == golden[f"D{stage}"]["returning_users"]
        assert counts["unknown"] == 0


def test_instruments_without_its_first_stage(shared):
    dataset = read_released(shared / "data" / "amazon_instruments", "amazon_instruments")
    groups, counts = np.unique(user_groups(dataset.block(2), None), return_counts=True)
    assert dict(zip(groups.tolist(), counts.tolist(), strict=True)) == {"new": 1183, "unknown": 589}


@pytest.mark.parametrize("before", [None, block_of(1, {"a": 0})])
def test_every_name_is_a_known_group(before):
    assert set(user_groups(block_of(2, {"a": 1, "b": 0, "c": 2}), before)) <= set(GROUPS)
