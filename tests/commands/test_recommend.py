from functools import cache

import pyarrow.parquet
import pytest
from commands.running import peso, refused
from two_tower.towers import arguments


@pytest.fixture(scope="module")
def ask(trained):
    return lambda *more: peso("recommend", "stage=2", *trained.arguments(), *more)


@pytest.fixture(scope="module")
def user(trained) -> dict:
    """A user of stage 2, as the scoring saw them."""
    return pyarrow.parquet.read_table(trained.folder("peso", 2) / "predictions.parquet").to_pylist()[0]


def examples_of(trained, user: str, stage: int) -> dict:
    answer = peso("data", "examples", "--stage", stage, "--split", "test", "--user", user, *trained.arguments())
    return answer.document


def test_a_users_history_is_all_up_to_the_stage(ask, trained, user):
    document = ask("--user", user["user"], "--json").document
    example = examples_of(trained, user["user"], 2)
    assert document["user"] == user["user"]
    assert document["history"][-len(example["history"]) - 1 :] == [*example["history"], example["target"]]
    assert len(document["items"]) == 10


def test_a_history_by_hand_ranks_as_the_scoring_did(ask, trained, user):
    history = examples_of(trained, user["user"], 2)["history"]
    document = ask("--history", ", ".join(history), "--json").document
    assert document["user"] is None
    assert document["history"] == history
    distinct = {row["sid"]: row for row in reversed(document["items"])}
    firsts = [row["item"] for row in document["items"] if distinct[row["sid"]] is row]
    assert firsts == user["items"][: len(firsts)]
    assert document["items"][0]["score"] == pytest.approx(user["scores"][0], abs=1e-5)


def test_items_of_a_known_user_and_of_their_history_by_hand_agree(ask, user):
    by_name = ask("--user", user["user"], "--json").document
    by_hand = ask("--history", ",".join(by_name["history"]), "--json").document
    assert by_name["items"] == by_hand["items"]


def test_only_the_latest_of_a_long_history_count(ask):
    latest = [f"item{n}" for n in range(1, 21)]
    short, long = (ask("--history", ",".join(items), "--json").document for items in (latest, ["item70"] * 9 + latest))
    assert long["items"] == short["items"]
    assert len(long["history"]) == 29


def test_scores_fall_and_titles_are_shown(ask):
    answer = ask("--history", "item1,item2")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in answer.out.splitlines() if line[:1] == "│"]
    assert "peso after stage 2, for the history given" in answer.out
    assert [row[0] for row in rows] == [str(place) for place in range(1, 11)]
    assert all(row[1].startswith("item") and "Edition" in row[2] and row[3].startswith("<a_") for row in rows)
    scores = [float(row[4]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_somebody_without_a_history_gets_recommendations_too(ask):
    document = ask("--history", "", "--json").document
    assert document["history"] == []
    assert len(document["items"]) == 10


@pytest.mark.parametrize(("k", "more"), [(1, []), (3, []), (10, []), (20, ["decoding.beams=20"])])
def test_as_many_as_asked_for(ask, k, more):
    items = ask("--history", "item1", "--k", k, "--json", *more).document["items"]
    assert len(items) == k
    assert len({row["item"] for row in items}) == k


def test_more_of_them_begin_with_the_same(ask):
    three, ten = (ask("--history", "item1", "--k", k, "--json").document["items"] for k in (3, 10))
    assert ten[:3] == three


def test_a_search_by_position_shows_only_what_exists(ask):
    items = ask("--history", "item1", "--json", "decoding=positional").document["items"]
    assert len(items) <= 10
    assert all(row["item"].startswith("item") for row in items)


def carried(document) -> dict[str, dict[int, float]]:
    """For each recommended item the contribution of each place of the history."""
    return {row["item"]: {each["place"]: each["contribution"] for each in row["why"]} for row in document["items"]}


def without(history: list[str], place: int) -> str:
    return ",".join(item for n, item in enumerate(history, start=1) if n != place)


def test_contributions_are_what_is_lost_when_an_item_is_left_out(ask):
    history = ["item1", "item7", "item2", "item7", "item30"]
    document = ask("--history", ",".join(history), "--why", "5", "--json").document
    whole = {row["item"]: row["score"] for row in document["items"]}
    found, compared = carried(document), 0
    for place in range(1, 6):
        shorter = ask("--history", without(history, place), "--json").document["items"]
        for row in shorter:
            if row["item"] in whole:
                # Scores are means over three codes and the end token.
                lost = 4 * (whole[row["item"]] - row["score"])
                assert found[row["item"]][place] == pytest.approx(lost, abs=1e-4)
                compared += 1
    assert compared > 20
    assert all(set(contributions) == {1, 2, 3, 4, 5} for contributions in found.values())


def test_the_strongest_come_first_and_as_many_as_asked_for(ask):
    history = "item1,item7,item2,item9,item30"
    every = carried(ask("--history", history, "--why", "9", "--json").document)
    for words, count in ((["--why"], 3), (["--why", "2"], 2), (["2", "--why"], 2)):
        for row in ask("--history", history, "--json", *words).document["items"]:
            shown = [each["contribution"] for each in row["why"]]
            assert shown == sorted(every[row["item"]].values(), key=abs, reverse=True)[:count]
            assert all(each["item"] == history.split(",")[each["place"] - 1] for each in row["why"])


def test_shared_beginnings_are_read_once(ask):
    document = ask("--history", "item1,item7,item2,item9,item30", "--why", "--k", "1", "--json").document
    # Whole: the head, 5 items, the answer. Without item n the 5 - n items after it and the answer are new; without the
    # last one the answer alone; the codes that answers have in common with what was there are not.
    most = 1 + 3 * (5 + 4 + 3 + 2 + 1) + 3 * 6
    assert most - 3 * 6 <= document["tokens_read"] <= most
    assert document["tokens_alone"] == 1 + 3 * 6 + 5 * (1 + 3 * 5)


def test_why_is_told_in_the_table_with_titles(ask):
    answer = ask("--history", "item1,item2", "--why", "1")
    assert answer.out.count("Edition") == 20
    signs = [line for line in answer.out.splitlines() if line.startswith("│") and ("│ +" in line or "│ -" in line)]
    assert len(signs) == 10
    assert "below 0 it spoke against it" in answer.out
    assert "tokens were read, of" in answer.out


def test_an_empty_history_carries_nothing(ask):
    document = ask("--history", "", "--why", "--json").document
    assert [row["why"] for row in document["items"]] == [[]] * 10
    assert ask("--history", "", "--why").code == 0


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Asks trained two-tower models, each by its backbone."""

    @cache
    def trained(backbone):
        words = arguments(tmp_path_factory.mktemp(backbone), backbone, "finetune")
        answer = peso("train", "stage=1", *words)
        assert answer.code == 0, answer.err
        return words

    return lambda backbone, *more: peso("recommend", "stage=1", *trained(backbone), *more)


@pytest.mark.parametrize("backbone", ["sasrec", "bpr"])
def test_a_model_that_reads_items_tells_of_them(towers, backbone):
    history = ["item1", "item7", "item2", "item30"]
    document = towers(backbone, "--history", ",".join(history), "--why", "4", "--k", "30", "--json").document
    whole, found = {row["item"]: row["score"] for row in document["items"]}, carried(document)
    assert any(value for contributions in found.values() for value in contributions.values())
    for place in range(1, 5):
        shorter = towers(backbone, "--history", without(history, place), "--k", "40", "--json").document["items"]
        scores = {row["item"]: row["score"] for row in shorter}
        for item in whole.keys() & scores.keys():
            assert found[item][place] == pytest.approx(whole[item] - scores[item], abs=1e-5)


@pytest.mark.parametrize("backbone", ["bpr", "lightgcn"])
def test_a_user_known_by_a_vector_is_not_told_by_the_history(towers, backbone):
    user = towers(backbone, "--user", "?").err.partition("there are ")[2].partition(",")[0]
    answer = towers(backbone, "--user", user, "--why")
    refused(answer, "--why: the model has a vector of its own for user", user, "--history")
    assert towers(backbone, "--user", user).code == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--history", "item1", "--why", "0"], ["--why 0: give one number from 1 on"]),
        (["--history", "item1", "--why", "2", "3"], ["--why 2 3: give one number"]),
        (["--history", "item1", "3"], ["3"]),
        ([], ["either --user USER or --history"]),
        (["--user", "user1", "--history", "item1"], ["either --user USER or --history"]),
        (["--user", "nobody"], ["--user nobody", "stages 1 to 2 of synthetic", "there are user"]),
        (["--history", "item1,itm2"], ["'itm2'", "did you mean item"]),
        (["--history", "item1,???"], ["'???' is not in the catalog"]),
        (["--history", "item1", "--k", "11", "decoding.beams=10"], ["decoding.beams=10", "at least 11"]),
        (["--history", "item1", "--k", "99", "decoding.beams=99"], ["distinct semantic IDs, fewer than 99"]),
        (["--history", "item1", "stage=1..2"], ["stage=[1, 2]", "one stage"]),
        (["--history", "item1", "method=l2"], ["stage 2 of l2 isn't trained"]),
    ],
)
def test_what_can_not_be_answered_is_one_line(ask, arguments, parts):
    refused(ask(*arguments), *parts)


def test_a_user_who_comes_later_is_not_known_yet(ask, trained):
    third = pyarrow.parquet.read_table(trained.folder("peso", 3) / "predictions.parquet")
    new = next(row["user"] for row in third.to_pylist() if row["group"] == "new")
    refused(ask("--user", new), f"--user {new}", "no such user in stages 1 to 2")
    assert ask("--user", new, "stage=3").code == 0
