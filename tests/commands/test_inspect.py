"""`peso inspect`: what it writes and prints, and what it refuses. That its figures are right, tests/inspection says."""

import json

import pytest
from commands.running import files_of, peso, refused

QUICK = ("--directions", "3", "--examples", "8")
PICTURES = ["movement.svg", "angles.svg", "support.svg", "followed.svg"]


def inspected(trained, tmp_path, *arguments):
    answer = peso("inspect", *trained.arguments(*arguments), *QUICK, "--json", "--output", str(tmp_path / "found"))
    assert answer.code == 0, answer.err
    return answer.document


def test_the_document_is_printed_and_written_with_its_pictures(copied, tmp_path):
    document = inspected(copied, tmp_path, "stage=3", "method=peso")
    folder = tmp_path / "found"
    assert json.loads((folder / "inspect.json").read_text()) == document
    assert document["folder"] == str(copied.folder("peso", 3))
    assert (document["method"], document["stage"], document["since"]) == ("peso", 3, "stage 2")
    assert document["pictures"] == PICTURES
    assert sorted(files_of(folder)) == sorted([*PICTURES, "inspect.json"])
    assert all(b"<svg" in (folder / name).read_bytes() for name in PICTURES)
    total = document["movement"]["total"]
    assert total["penalty"] == pytest.approx(sum(m["penalty"] for m in document["movement"]["modules"].values()))
    support = document["support"]
    assert len(support["directions"]) == 3
    assert support["examples"] == 8
    assert support["pull"] == pytest.approx(3000 / len(document["movement"]["modules"]))
    for row in support["directions"]:
        assert row["predicted"] == pytest.approx(row["support"] / (row["support"] + support["pull"]))
        assert row["followed"] == pytest.approx(row["moved"] / row["newton"])


def test_the_artifact_stays_whole_and_holds_the_inspection(copied):
    folder = copied.folder("peso", 3)
    before = files_of(folder)
    answer = peso("inspect", "stage=3", *copied.arguments(), *QUICK)
    assert answer.code == 0, answer.err
    assert "how its adapter moved since stage 2" in answer.out
    assert "followed" in answer.out
    after = files_of(folder)
    assert {name for name in after if name not in before} == {f"inspect/{name}" for name in [*PICTURES, "inspect.json"]}
    assert all(after[name] == data for name, data in before.items())
    assert peso("evaluate", "stage=3", *copied.arguments()).code == 0
    peso("inspect", "stage=3", *copied.arguments(), *QUICK)
    assert files_of(folder) == after


def test_a_first_adapter_is_compared_with_its_start(copied, tmp_path):
    document = inspected(copied, tmp_path, "stage=2", "method=single")
    assert document["since"] == "a fresh adapter"
    total = document["movement"]["total"]
    assert total["B"]["norm_before"] == 0
    assert 0 < total["A"]["relative"] < 0.5
    assert document["support"]["pull"] == 0
    assert {row["predicted"] for row in document["support"]["directions"]} == {1.0}


def test_a_stage_that_took_no_step_is_found_where_it_began(copied, tmp_path):
    untrained = ("stage=2", "method=single", "trainer.later_epochs=0")
    assert peso("train", *copied.arguments(*untrained)).code == 0
    document = inspected(copied, tmp_path, *untrained)
    total = document["movement"]["total"]
    assert [total[part]["moved"] for part in ("A", "B", "BA")] == [0, 0, 0]
    assert total["A"]["norm_before"] > 0
    assert document["support"]["share_of_movement"] is None
    assert all(row["followed"] == 0 for row in document["support"]["directions"])
    assert peso("inspect", *copied.arguments(*untrained), *QUICK).code == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["stage=3", "method=pretrain"], ["stage 3 of pretrain left no LoRA factors", "adapter=frozen"]),
        (["stage=1"], ["stage 1 of peso left no LoRA factors"]),
        (["stage=2", "method=l2"], ["stage 2 of l2 isn't trained", "peso train stage=2 "]),
        (["stage=2..3"], ["inspect takes one stage"]),
        (["stage=4"], ["stages 1 to 3"]),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(trained, tmp_path, arguments, parts):
    before = files_of(trained.output)
    refused(peso("inspect", *trained.arguments(*arguments), "--output", str(tmp_path / "found")), *parts)
    assert files_of(trained.output) == before
    assert not (tmp_path / "found").exists()


def test_a_file_is_no_folder_for_pictures(trained, tmp_path):
    (tmp_path / "found").write_text("mine")
    refused(peso("inspect", "stage=3", *trained.arguments(), "--output", str(tmp_path / "found")), "is a file")
    assert (tmp_path / "found").read_text() == "mine"
    assert peso("inspect", "stage=3", *trained.arguments(), "--directions", "0").code == 2
