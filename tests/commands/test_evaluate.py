import json
import shlex

import pyarrow.parquet
import pytest
from commands.running import SMALL, files_of, peso, refused

from peso_cli.evaluation import figures


def metrics_of(trained, method="peso", stage=2):
    return json.loads((trained.folder(method, stage) / "metrics.json").read_text())


def cells(text):
    """The rows of all tables in a text."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]


@pytest.mark.parametrize(("method", "stage"), [("peso", 1), ("peso", 3), ("single", 2), ("pretrain", 2)])
def test_the_figures_are_those_that_training_left(trained, method, stage):
    answer = peso("evaluate", f"stage={stage}", f"method={method}", "--json", *trained.arguments())
    assert answer.err == ""
    document = answer.document
    folder = trained.folder("base" if stage == 1 else method, stage)
    assert document.pop("folder") == str(folder)
    assert document.pop("method") == method
    assert document == json.loads((folder / "metrics.json").read_text())


def test_scored_again_the_figures_are_the_same(copied):
    path = copied.folder("peso", 3) / "metrics.json"
    again = ("evaluate", "stage=3", "evaluation.on=[1,2]", *copied.arguments())
    without = path.read_text()
    assert peso(*again).code == 0
    before = json.loads(path.read_text())
    path.write_text(without)
    assert peso(*again).code == 0
    assert json.loads(path.read_text()) == before


def test_any_stage_can_be_scored_on_any_stages_users(copied):
    answer = peso("evaluate", "stage=2", "evaluation.on=[1,2,3]", *copied.arguments())
    metrics = metrics_of(copied)
    assert set(metrics["evaluated"]) == {"1", "2", "3"}
    rows = cells(answer.out)
    own = [row for row in rows if row[1] == "peso" and row[0] in "123"]
    for row, stage in zip(own, "123", strict=True):
        test = metrics["evaluated"][stage]["test"]
        assert row[2:] == [
            *(f"{test[c]:.4f}" for c in ("recall@5", "recall@10", "ndcg@5", "ndcg@10")),
            str(test["users"]),
        ]
    for stage in "123":
        for group, test in metrics["groups"][stage]["test"].items():
            assert [stage, group, *(f"{test[c]:.4f}" for c in ("recall@5", "recall@10"))] in [row[:4] for row in rows]


def test_the_matrix_is_every_stages_users(copied):
    by_name = peso("evaluate", "stage=2", "evaluation=matrix", "--json", *copied.arguments())
    assert set(by_name.document["evaluated"]) == {"1", "2", "3"}
    by_number = peso("evaluate", "stage=2", "evaluation.on=[1,2,3]", "--json", *copied.arguments())
    assert by_number == by_name


def test_the_next_stage_is_asked_for_its_users_first_events(copied):
    answer = peso("evaluate", "stage=2", "evaluation=next_stage", *copied.arguments())
    metrics = metrics_of(copied)
    assert {stage: set(splits) for stage, splits in metrics["evaluated"].items()} == {"2": {"test"}, "3": {"next"}}
    summary, groups = metrics["evaluated"]["3"]["next"], metrics["groups"]["3"]["next"]
    lines = peso("data", "examples", "--stage", 3, "--split", "next", *copied.arguments()).out.splitlines()
    everybody = peso("data", "stats", "--json", *copied.arguments()).document["stages"][2]["users"]
    assert (summary["users"], summary["users"] + summary["left_out"]) == (len(lines), everybody)
    assert set(groups) == {"returning", "dormant"}
    assert sum(group["users"] for group in groups.values()) == summary["users"]
    figures = [f"{summary[c]:.4f}" for c in ("recall@5", "recall@10", "ndcg@5", "ndcg@10")]
    assert ["3", "peso", *figures, str(summary["users"])] in cells(answer.out)
    assert "peso after stage 2, first events of users by stage" in answer.out
    assert f"stage 3: {summary['left_out']} users have no event before it and are left out" in answer.out


def test_what_comes_next_is_kept_beside_other_figures_and_not_scored_again(copied, monkeypatch):
    command = ("evaluate", "stage=2", "evaluation=next_stage", "--json", *copied.arguments())
    alone = peso(*command).document["evaluated"]["3"]
    assert peso("evaluate", "stage=2", "evaluation=matrix", *copied.arguments()).code == 0
    monkeypatch.setattr(figures, "score", None)
    both = peso(*command).document["evaluated"]["3"]
    assert set(both) == {"next", "test"}
    assert both["next"] == alone["next"] != both["test"]


def test_the_base_is_asked_what_comes_next_too(copied):
    document = peso("evaluate", "stage=1", "evaluation=next_stage", "--json", *copied.arguments()).document
    assert document["folder"] == str(copied.folder("base", 1))
    assert set(document["evaluated"]["2"]) == {"next"}


def test_the_last_stage_has_no_next_one(copied):
    command = ("evaluate", "evaluation=next_stage", *copied.arguments())
    answer = peso(*command, "stage=all", "--json")
    assert [document["stage"] for document in answer.document] == [1, 2]
    assert answer.err == "stage 3 is the last one of synthetic, there is no next one to score it on\n"
    assert isinstance(peso(*command, "stage=2..3", "--json").document, list)
    assert set(metrics_of(copied, stage=3)["evaluated"]) == {"3"}
    refused(peso(*command, "stage=3"), "evaluation=next_stage", "stage 3 is the last one", "give an earlier stage=")


def test_a_stage_that_does_not_train_scores_as_the_base_does(copied):
    for stage in (1, 3):
        assert peso("evaluate", f"stage={stage}", "method=pretrain", "evaluation.on=[2]", *copied.arguments()).code == 0
    base, frozen = metrics_of(copied, "base", 1), metrics_of(copied, "pretrain", 3)
    assert base["evaluated"]["2"] == frozen["evaluated"]["2"]
    assert frozen["evaluated"]["2"] == metrics_of(copied, "pretrain", 2)["evaluated"]["2"]


def test_validation_users_have_figures_of_their_own(copied):
    answer = peso("evaluate", "stage=2", "evaluation.split=valid", *copied.arguments())
    assert "peso after stage 2, valid users by stage" in answer.out
    evaluated = metrics_of(copied)["evaluated"]["2"]
    assert set(evaluated) == {"test", "valid"}
    assert "ceiling" not in evaluated["valid"]
    assert evaluated["valid"] != evaluated["test"]


def test_what_is_known_is_not_scored_again(copied, monkeypatch):
    command = ("evaluate", "stage=2", "evaluation.on=[1,2]", *copied.arguments())
    first = peso(*command)
    monkeypatch.setattr(figures, "score", None)
    assert peso(*command) == first


def test_several_stages_make_a_list(trained):
    documents = peso("evaluate", "stage=2..3", "--json", *trained.arguments()).document
    assert [document["stage"] for document in documents] == [2, 3]


@pytest.mark.parametrize(
    "override", ["decoding.beams=20", "decoding=positional", "decoding.normalise=level", "decoding.top_k=5"]
)
def test_other_ways_of_decoding_leave_the_stages_own_figures_alone(copied, override):
    before = files_of(copied.folder("peso", 2))
    answer = peso("evaluate", "stage=2", "--json", *copied.arguments(override))
    after = files_of(copied.folder("peso", 2))
    (new,) = after.keys() - before.keys()
    assert new.startswith("evaluations/")
    assert {name: after[name] for name in before} == before
    document = answer.document
    assert document["protocol"] != json.loads(before["metrics.json"])["protocol"]
    assert json.loads(after[new])["evaluated"] == document["evaluated"]
    assert peso("evaluate", "stage=2", "--json", *copied.arguments(override)).document == document


def test_a_damaged_file_of_other_figures_is_one_line(copied):
    command = ("evaluate", "stage=2", *copied.arguments("decoding.beams=20"))
    assert peso(*command).code == 0
    (path,) = copied.output.rglob("evaluations/*.json")
    path.write_text("{")
    refused(peso(*command), str(path), code=1)


def test_the_size_of_batches_changes_nothing(copied):
    document = {}
    for tokens in (1, 10_000, "null"):
        path = copied.folder("single", 3) / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "data": {}}))
        command = ("evaluate", "stage=3", "method=single", "--json", f"decoding.batch_tokens={tokens}")
        document[tokens] = peso(*command, *copied.arguments()).document
    assert document[1] == document[10_000] == document["null"]


def test_several_stages_at_once_give_the_figures_of_one_by_one(copied):
    def again(*ons):
        path = copied.folder("peso", 3) / "metrics.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "data": {}}))
        for on in ons:
            assert peso("evaluate", "stage=3", f"evaluation.on=[{on}]", *copied.arguments()).code == 0
        return json.loads(path.read_text())

    together, apart = again("2,1,3"), again("1", "2", "3")
    assert set(together["evaluated"]) == {"1", "2", "3"}
    assert together == apart


def names_of(top):
    """The figures of lists of some length."""
    return {f"{kind}@{k}" for kind in ("recall", "ndcg") for k in {1, 5, 10, top} if k <= top}


def at_some_k(figures):
    return {name for name in figures if "@" in name}


@pytest.mark.parametrize("top", [1, 5, 7, 20])
def test_figures_go_as_far_as_the_lists_asked_for(copied, top):
    document = peso("evaluate", "stage=2", f"decoding.top_k={top}", "--json", *copied.arguments()).document
    test, own = document["evaluated"]["2"]["test"], metrics_of(copied)["evaluated"]["2"]["test"]
    for figures_of in (test, test["item"], test["popularity"], test["popularity"]["item"]):
        assert at_some_k(figures_of) == names_of(top)
    for group in document["groups"]["2"]["test"].values():
        assert at_some_k(group) == names_of(top)
    assert at_some_k(test["ceiling"]) == at_some_k(own["ceiling"]) & names_of(top)
    shared = names_of(top) & names_of(10)
    assert {name: test[name] for name in shared} == {name: own[name] for name in shared}
    assert document["protocol"]["top_k"] == top


@pytest.mark.parametrize("top", [1, 7, 20])
def test_a_stage_trained_with_other_lists_keeps_lists_of_that_length(tmp_path, top):
    answer = peso("train", *SMALL, "trainer.epochs=1", f"decoding.top_k={top}", "--json", f"output={tmp_path}")
    document = answer.document["stages"]["1"]
    assert at_some_k(document["evaluated"]["1"]["test"]) == names_of(top)
    (path,) = tmp_path.rglob("predictions.parquet")
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert {(len(row["items"]), len(row["scores"])) for row in rows} == {(top, top)}
    assert {row["rank"] for row in rows} <= {None, *range(1, top + 1)}
    hits = sum(row["rank"] is not None for row in rows)
    assert document["evaluated"]["1"]["test"][f"recall@{top}"] == pytest.approx(hits / len(rows))


@pytest.mark.parametrize(("top", "at"), [(1, [1]), (5, [5]), (20, [5, 10, 20])])
def test_tables_go_as_far_as_the_lists(copied, top, at):
    for command in ("train", "evaluate"):
        answer = peso(command, "stage=1..3", f"decoding.top_k={top}", *copied.arguments())
        assert answer.code == 0, answer.err
        header = next(line for line in answer.out.splitlines() if "users" in line and "┃" in line)
        assert [name for name in header.split() if "@" in name] == [f"{k}@{n}" for k in ("recall", "ndcg") for n in at]
        rows = [row for row in cells(answer.out) if len(row) == 2 * len(at) + 3]
        assert {row[1] for row in rows} >= {"peso", "peso (item)", "popularity", "best attainable"}
        for row in rows:
            recall, ndcg = row[2 : 2 + len(at)], row[2 + len(at) : -1]
            for upper, lower in zip(recall, ndcg, strict=True):
                # How much of the ceiling is known depends on the world, not on the lists.
                assert row[1] == "best attainable" or float(upper) >= float(lower) >= 0
    assert "mean 2+" in peso("train", "stage=1..3", f"decoding.top_k={top}", *copied.arguments()).out


def test_too_narrow_a_beam_is_refused(trained):
    refused(peso("evaluate", "stage=2", "decoding.beams=5", *trained.arguments()), "decoding.beams=5", "at least 10")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["decoding.beams=19", "decoding.top_k=20"], ["decoding.beams=19", "at least 20"]),
        (["decoding.beams=200", "decoding.top_k=200"], ["the catalog has", "fewer than 200"]),
        (["decoding.top_k=0"], ["decoding.top_k=0", "greater than or equal to 1"]),
    ],
)
def test_lists_that_can_not_be_filled_are_refused_before_anything_is_written(copied, tmp_path, overrides, parts):
    before = files_of(copied.output)
    refused(peso("evaluate", "stage=2", *copied.arguments(*overrides)), *parts)
    refused(peso("train", "stage=2", *copied.arguments(*overrides)), *parts)
    assert files_of(copied.output) == before
    refused(peso("train", "stage=1", *SMALL, f"output={tmp_path / 'new'}", *overrides), *parts)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["stage=2", "method=l2"], ["stage 2 of l2 isn't trained", "peso train stage=2 "]),
        (["stage=3", "seed=7"], ["stage 1 of peso isn't trained", "peso train stage=3 "]),
        (["stage=2", "evaluation.on=[4]"], ["stage=4", "stages 1 to 3"]),
        (["stage=4"], ["stage=4", "stages 1 to 3"]),
        (["stage=2", "evaluation=matrix", "evaluation.on=[1]"], ["evaluation.on=[1]", "give evaluation=in_stage"]),
        (["stage=2", "evaluation=next_stage", "evaluation.on=[3]"], ["evaluation.on=[3]", "give evaluation=in_stage"]),
        (["stage=2", "evaluation=next_stage", "evaluation.split=valid"], ["evaluation.split=valid", "first events"]),
        (["stage=2", "evaluation=next"], ["evaluation=next", "next_stage"]),
        (["stage=2", "evaluation.protocol=next"], ["evaluation.protocol=next", "next_stage"]),
    ],
)
def test_what_is_not_there_is_one_line(trained, overrides, parts):
    before = files_of(trained.output)
    refused(peso("evaluate", *trained.arguments(*overrides)), *parts)
    assert files_of(trained.output) == before


def test_the_command_to_run_first_can_be_pasted(copied, tmp_path):
    (tmp_path / "own folder").mkdir()
    arguments = copied.arguments("stage=2", "method=l2", "variant=mine", "--config-dir", str(tmp_path / "own folder"))
    line = refused(peso("evaluate", *arguments), "stage 2 of l2 isn't trained")
    command = shlex.split(line.partition("first run: ")[2])
    assert command[0] == "peso"
    assert peso(*command[1:]).code == 0
    assert peso("evaluate", *arguments).code == 0


def test_an_unfinished_stage_is_not_trained(copied):
    (copied.folder("peso", 3) / "DONE").unlink()
    refused(peso("evaluate", "stage=3", *copied.arguments()), "stage 3 of peso isn't trained", "peso train stage=3")
