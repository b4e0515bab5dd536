import json
import shutil

import pytest
from commands.running import peso, refused


def test_every_stage_is_listed_with_its_figures(trained):
    rows = peso("runs", "--output", trained.output, "--json").document
    found = [(row["method"], row["stage"]) for row in rows]
    assert found == [
        ("base", 1),
        ("peso", 2),
        ("peso", 3),
        ("pretrain", 2),
        ("pretrain", 3),
        ("single", 2),
        ("single", 3),
    ]
    for row in rows:
        assert (row["dataset"], row["backbone"], row["seed"], row["state"]) == ("synthetic", "tiny", 1, "finished")
        folder = trained.folder(row["method"], row["stage"])
        assert row["folder"] == str(folder)
        assert row["variant"] == folder.parts[-3]
        test = json.loads((folder / "metrics.json").read_text())["evaluated"][str(row["stage"])]["test"]
        assert row["figures"] == {name: test[name] for name in ("recall@5", "recall@10", "ndcg@5", "ndcg@10")}


def test_the_table_shows_the_same(trained):
    text = peso("runs", "--output", trained.output).out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]
    documents = peso("runs", "--output", trained.output, "--json").document
    names = ("dataset", "backbone", "method", "variant", "seed", "stage", "state")
    assert rows == [[*(str(d[n]) for n in names), *(f"{v:.4f}" for v in d["figures"].values())] for d in documents]


@pytest.mark.parametrize(
    ("top", "columns", "ten", "other"),
    [
        (5, ("recall@5", "recall@10", "ndcg@5", "ndcg@10"), (1, 1, 1, 1), (1, 0, 1, 0)),
        (20, ("recall@5", "recall@10", "recall@20", "ndcg@5", "ndcg@10", "ndcg@20"), (1, 1, 0, 1, 1, 0), (1,) * 6),
        (1, ("recall@1", "recall@5", "recall@10", "ndcg@1", "ndcg@5", "ndcg@10"), (1,) * 6, (1, 0, 0, 1, 0, 0)),
    ],
)
def test_runs_with_lists_of_several_lengths_stand_side_by_side(copied, top, columns, ten, other):
    path = copied.folder("single", 3) / "metrics.json"
    metrics = json.loads(path.read_text())
    own = metrics["evaluated"]["3"]["test"]
    for kind in ("recall", "ndcg"):
        own |= {f"{kind}@{top}": 0.25}
        for k in (1, 5, 10):
            if k > top:
                del own[f"{kind}@{k}"]
    path.write_text(json.dumps(metrics))
    text = peso("runs", "--output", copied.output).out
    assert [cell.strip() for cell in text.splitlines()[2].split("┃")[8:-1]] == list(columns)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line[:1] == "│"]
    assert len(rows) == 7
    for row in rows:
        there = other if (row[2], row[5]) == ("single", "3") else ten
        stage = json.loads((copied.folder(row[2], row[5]) / "metrics.json").read_text())["evaluated"][row[5]]["test"]
        assert row[7:] == [f"{stage[c]:.4f}" if is_there else "-" for c, is_there in zip(columns, there, strict=True)]
    (document,) = [
        row
        for row in peso("runs", "--output", copied.output, "--json").document
        if (row["method"], row["stage"]) == ("single", 3)
    ]
    assert document["figures"] == {c: own[c] for c in columns if c in own}


def test_any_folder_above_the_runs_will_do(trained, monkeypatch):
    every = peso("runs", "--output", trained.output, "--json").document
    inner = peso("runs", "--output", trained.output / "synthetic", "--json").document
    assert inner == every
    folder = trained.folder("peso", 3)
    (own,) = peso("runs", "--output", folder, "--json").document
    assert own in every
    monkeypatch.chdir(folder)
    (here,) = peso("runs", "--output", ".", "--json").document
    assert here == {**own, "folder": "."}


def test_an_unfinished_stage_is_said_to_be_so(copied):
    (copied.folder("single", 3) / "DONE").unlink()
    rows = peso("runs", "--output", copied.output, "--json").document
    (row,) = [row for row in rows if row["state"] == "unfinished"]
    assert (row["method"], row["stage"], row["figures"]) == ("single", 3, {})
    assert "unfinished" in peso("runs", "--output", copied.output).out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lineage.json", "{"),
        ("lineage.json", "{}"),
        ("metrics.json", "["),
        ("metrics.json", "{}"),
        ("metrics.json", '{"evaluated": {"3": {"test": {"users": 3}}}}'),
        ("metrics.json", '{"evaluated": {"3": {"test": {"recall@5": 0.5}}}}'),
        ("metrics.json", '{"evaluated": {"3": {"test": {"recall@5": 0.5, "ndcg@5": null}}}}'),
    ],
)
def test_a_damaged_one_is_left_out_with_a_word_and_the_others_stay(copied, name, content):
    path = copied.folder("single", 3) / name
    path.write_text(content)
    answer = peso("runs", "--output", copied.output, "--json")
    assert answer.code == 0
    assert len(answer.document) == 6
    (line,) = answer.err.splitlines()
    assert line.startswith("left out: ")
    assert str(path.parent) in line


def test_nothing_trained_yet(tmp_path):
    answer = peso("runs", "--output", tmp_path)
    assert answer.code == 0
    assert f"nothing has been trained under {tmp_path} yet" in answer.out
    assert peso("runs", "--output", tmp_path, "--json").document == []


def test_a_folder_that_is_not_there(tmp_path):
    refused(peso("runs", "--output", tmp_path / "nowhere"), "--output", "nowhere: no such folder")


def test_outputs_is_where_it_looks_by_itself(trained, tmp_path, monkeypatch):
    shutil.copytree(trained.output, tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    assert len(peso("runs", "--json").document) == 7
