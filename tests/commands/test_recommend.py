import pyarrow.parquet
import pytest
from commands.running import peso, refused


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


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
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
