"""What comes next, asked of stages in files: what may be recommended, and what must be taken anew."""

import json

import pytest
from commands.running import SMALL, WORLD, peso

HIDING = "dataset.catalog=visible"


@pytest.fixture(scope="module")
def visible(tmp_path_factory):
    """The small world in the released layout, its new items hidden until they have events; stage 2 is trained."""
    folder = tmp_path_factory.mktemp("next")
    assert peso("data", "export", "--output", folder / "data", *WORLD, "dataset.new_items=0.4").code == 0
    settings = [*(word for word in SMALL if word not in WORLD), "trainer.epochs=1", "trainer.later_epochs=1"]
    data = ("dataset=released", "dataset.name=synthetic", f"dataset.path={folder / 'data'}", HIDING)
    arguments = (*settings, *data, "method=single", f"output={folder / 'outputs'}")
    answer = peso("train", "stage=2", *arguments)
    assert answer.code == 0, answer.err
    return arguments, folder / "data"


def blocks_of(data):
    return {n: json.loads((data / f"synthetic.all.block_{n}.json").read_text()) for n in range(3)}


def items_by(data, stage):
    """All items with events by a stage."""
    blocks = [users for number, users in blocks_of(data).items() if number < stage]
    return {item for users in blocks for lists in users.values() for part in lists.values() for item in part}


def asked(arguments):
    document = peso("evaluate", "stage=2", "evaluation=next_stage", "--json", *arguments).document
    return document["evaluated"]["3"]["next"], document["data"]["3"]


def test_targets_that_come_in_with_the_next_stage_are_missed_and_count(visible):
    arguments, data = visible
    users = {user: lists for user, lists in blocks_of(data)[2].items() if lists["previous_block"]}
    unseen = [user for user, lists in users.items() if lists["current_block"][0] not in items_by(data, 2)]
    summary, _ = asked(arguments)
    assert unseen
    assert summary["users"] == len(users)
    # All that can be hit are the others.
    for top in (20, 40):
        wide, _ = asked((*arguments, f"decoding.top_k={top}", "decoding.beams=40"))
        assert wide[f"recall@{top}"] <= 1 - len(unseen) / len(users)
        assert wide["popularity"][f"recall@{top}"] <= 1 - len(unseen) / len(users)


def test_a_next_stage_that_has_changed_is_asked_anew(visible):
    arguments, data = visible
    path = data / "synthetic.all.block_2.json"
    (before, digest), whole = asked(arguments), path.read_text()
    users = json.loads(whole)
    gone = next(user for user, lists in users.items() if lists["previous_block"])
    path.write_text(json.dumps({user: lists for user, lists in users.items() if user != gone}))
    after, other = asked(arguments)
    assert (after["users"], after["left_out"]) == (before["users"] - 1, before["left_out"])
    assert digest != other
    path.write_text(whole)
    assert asked(arguments) == (before, digest)


def test_a_next_stage_that_is_not_there_says_which_file_is_missing(visible):
    arguments, data = visible
    path = data / "synthetic.all.block_1.json"
    moved = path.rename(data / "away")
    try:
        answer = peso("evaluate", "stage=1", "evaluation=next_stage", *arguments)
    finally:
        moved.rename(path)
    assert answer.code == 2
    assert "stage 2 needs" in answer.err
    assert "synthetic.all.block_1.json" in answer.err
