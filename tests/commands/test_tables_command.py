"""The tables of stages that were really trained."""

import json
import shlex
import time

import pytest
from artifact_makers import made
from commands.running import peso

from peso_cli.commands.tables import tables
from peso_cli.errors import InputError


@pytest.fixture
def table(capsys):
    """Make tables as JSON, and return them with what went to standard error."""

    def make(name, output, *words):
        capsys.readouterr()
        tables(name, output, list(words), "json", "single", False)
        out, err = capsys.readouterr()
        return json.loads(out)["tables"], err

    return make


def own(copied, method, stage):
    metrics = json.loads((copied.folder(method, stage) / "metrics.json").read_text())
    return metrics["evaluated"][str(stage)]["test"]


def commands(table):
    return [shlex.split(note["command"]) for note in table["footnotes"] if note["command"]]


def test_what_is_missing_is_filled_by_the_command_under_the_table(copied, table):
    (whole,), err = table("main", copied.output)
    assert err == ""
    rows = {row["name"]: row["cells"] for row in whole["rows"]}
    assert list(rows) == ["pretrain", "single", "peso", "popularity", "best attainable"]
    for method in ("pretrain", "single", "peso"):
        for name in ("recall@5", "recall@10", "ndcg@5", "ndcg@10"):
            mean = (own(copied, method, 2)[name] + own(copied, method, 3)[name]) / 2
            assert rows[method][name]["mean"] == pytest.approx(mean, abs=1e-12)

    (copied.folder("pretrain", 3) / "DONE").unlink()
    (lacking,), _ = table("main", copied.output)
    assert {row["name"]: row["cells"]["ndcg@5"]["mean"] for row in lacking["rows"]}["pretrain"] is None
    (command,) = commands(lacking)
    assert peso(*command[1:], "tracker=none").code == 0
    assert table("main", copied.output)[0] == [whole]


def test_the_forgetting_matrix_is_filled_by_the_command_under_it(copied, table):
    (_, lacking), _ = table("forgetting", copied.output, "method=peso")
    for command in commands(lacking):
        assert peso(*command[1:]).code == 0
    (transfer, matrix), _ = table("forgetting", copied.output, "method=peso")
    assert commands(matrix) == []
    r = [[cell["mean"] for cell in row["cells"].values()] for row in matrix["rows"]]
    assert r[2][2] == own(copied, "peso", 3)["ndcg@10"]
    cells = transfer["rows"][0]["cells"]
    assert cells["BWT"]["mean"] == pytest.approx((r[2][0] - r[0][0] + r[2][1] - r[1][1]) / 2)
    assert cells["FWT"]["mean"] == pytest.approx(r[1][2] - r[0][2])
    ahead = json.loads((copied.folder("peso", 2) / "metrics.json").read_text())["evaluated"]["3"]["next"]
    assert cells["next event"]["mean"] == r[1][4] == ahead["ndcg@10"]
    assert [row[4] is None for row in r] == [False, False, True]


def test_methods_are_compared_with_the_baseline_user_by_user(copied, table):
    (recall, ndcg), err = table("significance", copied.output)
    assert err == ""
    for found, figure in ((recall, "recall@10"), (ndcg, "ndcg@10")):
        assert figure in found["title"]
        rows = {row["name"]: {name: cell["mean"] for name, cell in row["cells"].items()} for row in found["rows"]}
        assert list(rows) == ["pretrain", "peso"]
        for method, row in rows.items():
            gaps = [own(copied, method, stage)[figure] - own(copied, "single", stage)[figure] for stage in (2, 3)]
            assert row["difference"] == pytest.approx(sum(gaps) / 2, abs=1e-12)
            assert row["95 % from"] <= row["difference"] <= row["to"]
            assert 0 < row["p"] <= row["p (Holm)"] <= 1
            assert row["users"] == sum(own(copied, method, stage)["users"] for stage in (2, 3))
            assert row["seeds"] == 1


def test_nothing_is_compared_without_a_baseline_that_is_there(copied):
    with pytest.raises(InputError, match="significance: needs a --baseline"):
        tables("significance", copied.output, [], "json", "", False)
    (copied.folder("single", 3) / "DONE").unlink()
    with pytest.raises(InputError, match="significance: needs a --baseline"):
        tables("significance", copied.output, [], "json", "single", False)


def test_a_damaged_artifact_is_a_line_and_no_more(copied, table):
    folder = copied.folder("pretrain", 3)
    (folder / "metrics.json").write_text("{")
    (found,), err = table("main", copied.output)
    (line,) = err.splitlines()
    assert line.startswith("left out: ")
    assert str(folder) in line
    assert [row["name"] for row in found["rows"]][:2] == ["pretrain", "single"]


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv", "json"])
def test_every_format_shows_every_row(tmp_path, capsys, form):
    for method in ("single", "peso", "l2"):
        made(tmp_path, method)
    tables("main", tmp_path, [], form, "single", False)
    out = capsys.readouterr().out
    assert all(name in out for name in ("single", "peso", "l2", "popularity"))


def test_what_is_wrong_is_one_line(tmp_path):
    made(tmp_path, "peso")
    for arguments, part in (
        (("man", tmp_path, [], "json", "", False), "tables man: no such table (did you mean main?)"),
        (("main", tmp_path, [], "jsn", "", False), "--format jsn"),
        (("strength", tmp_path, [], "json", "", False), "tables strength: needs one method trained with several"),
        (("main", tmp_path / "nowhere", [], "json", "", False), "no such folder"),
    ):
        with pytest.raises(InputError) as caught:
            tables(*arguments)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)


def test_tables_of_many_runs_take_a_moment(tmp_path, capsys):
    for method in ("single", "peso", "l2"):
        for seed in range(1, 9):
            for stage in (2, 3, 4, 5):
                made(tmp_path, method, stage, seed=seed)
    begun = time.process_time()
    tables("main", tmp_path, [], "csv", "single", False)
    assert time.process_time() - begun < 2
    assert capsys.readouterr().out.count("\n") == 5
