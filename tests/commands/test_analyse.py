"""`peso analyse` on a world that is worked out by hand, and on runs that were really trained."""

import csv
import io
import json
import math
import shutil
from pathlib import Path
from random import Random

import polars as pl
import pytest
from commands.running import peso, refused
from hostile import harmless, seeds
from reports.analysis.analysed import run, runs, world
from test_hostile_artifacts import harm
from two_tower.towers import arguments

LOG_2 = math.log2(3)
SINGLE, TOWERS = "single, tiny", "two_tower_finetune, lightgcn"


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """The finished stages of both methods; only to be read."""
    return runs(tmp_path_factory.mktemp("analysed"))


@pytest.fixture(scope="module")
def mixed(trained, tmp_path_factory) -> Path:
    """Language models and a two-tower model that were trained on the same world."""
    output = Path(shutil.copytree(trained.output, tmp_path_factory.mktemp("mixed") / "outputs"))
    answer = peso("train", "stage=3", *arguments(output, "sasrec", "finetune"))
    assert answer.code == 0, answer.err
    return output


def analysed(output, *words):
    """The tables of an analysis: for each what it is of, rows by name with their figures by column, and the notes."""
    answer = peso("analyse", *words, "--output", output, "--format", "json")
    assert answer.code == 0, answer.err
    tables = {}
    for table in answer.document["tables"]:
        title = table["title"].rpartition(": ")[2]
        rows = {row["name"]: {name: cell["mean"] for name, cell in row["cells"].items()} for row in table["rows"]}
        tables[title] = rows, [note["text"] for note in table["footnotes"]]
    return tables


def only(output, section, *words):
    """The rows of each table of a section."""
    return [rows for rows, _ in analysed(output, "--only", section, *words).values()]


def bins(output, section):
    """The users, and the recall of each method, of the bins of a section."""
    ((rows, _),) = analysed(output, "--only", section).values()
    names = dict.fromkeys(name.partition(": ")[0] for name in rows)
    return {
        name: (
            rows[f"{name}: {SINGLE}"]["users"],
            rows[f"{name}: {SINGLE}"]["recall@2"],
            rows[f"{name}: {TOWERS}"]["recall@2"],
        )
        for name in names
    }


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("activity", {"0 to 4": (1, 0, 1), "5 to 9": (2, 0.5, 1)}),
        ("history", {"0 to 4": (1, 0, 1), "5 to 9": (2, 0.5, 1)}),
        ("groups", {"new": (1, 0, 1), "returning": (2, 0.5, 1)}),
        # Training targets so far: i0 3, i2 2, i4 4 of 9. More popular ones than i0 hold 4, than i2 7; i3 and i5 have
        # none of their own.
        ("popularity", {"head": (1, 0, 1), "new": (2, 0.5, 1)}),
        ("age", {"this stage": (2, 0, 1), "1 stage ago": (1, 1, 1)}),
        # u had a0 thrice and a1 once before, then a0 alone; v had no a1 but i3 of four.
        ("drift", {"little": (1, 1, 1), "much": (1, 0, 1), "no past": (1, 0, 1)}),
    ],
)
def test_bins_of_users_by_hand(output, section, expected):
    assert bins(output, section) == expected


def test_bins_without_users_are_named_and_ndcg_stands_beside_recall(output):
    ((rows, notes),) = analysed(output, "--only", "groups").values()
    assert rows[f"returning: {SINGLE}"]["ndcg@2"] == pytest.approx(0.5)
    assert rows[f"returning: {TOWERS}"]["ndcg@2"] == pytest.approx((1 + 1 / LOG_2) / 2)
    assert "no users: dormant, unknown" in notes


def test_overlap_by_hand(output):
    (rows,) = only(output, "overlap")
    assert rows[f"{SINGLE} | {TOWERS}"] == pytest.approx(
        {
            "only first": 0,
            "only second": 2 / 3,
            "both": 1 / 3,
            "either (oracle)": 1,
            "Jaccard": 1 / 3,
            "users": 3,
        }
    )


def test_calibration_by_hand_and_of_language_models_alone(output):
    tables = analysed(output, "--only", "calibration")
    (errors, notes), (reliability, _) = tables.values()
    assert errors[SINGLE] == pytest.approx(
        {
            "confidence": 0.45,
            "hits at rank 1": 1 / 3,
            "ECE, equal widths": (0.05 + 0.25 + 0.15) / 3,
            "ECE, equal counts": (0.05 + 0.25 + 0.15) / 3,
        }
    )
    assert set(errors[TOWERS].values()) == {None}
    assert notes[0].endswith(f"nothing to calibrate: the scores of {TOWERS}")
    # Three users are in three of five parts.
    assert [row["confidence"] for row in reliability.values()] == pytest.approx([0.15, 0.25, 0.95])
    assert [row["hits at rank 1"] for row in reliability.values()] == [0, 0, 1]
    assert [name.partition(":")[0] for name in reliability] == ["lowest fifth", "second fifth", "fourth fifth"]


def test_coverage_and_novelty_by_hand(output):
    (rows,) = only(output, "coverage")
    # single: i3, i0 with i1, i5 of six. LightGCN: i1, i3, i4, i5.
    assert rows[SINGLE]["coverage@2"] == pytest.approx(4 / 6)
    assert rows[TOWERS]["coverage@2"] == pytest.approx(4 / 6)
    # Events with one more each: i0 4, i1 1, i2 3, i3 1, i4 5, i5 1 of 15.
    assert rows[SINGLE]["novelty"] == pytest.approx(sum(math.log2(15 / n) for n in (1, 4, 4, 4, 1)) / 5)
    assert rows[TOWERS]["novelty"] == pytest.approx(sum(math.log2(15 / n) for n in (1, 1, 5, 1, 5, 1)) / 6)


def test_fairness_by_hand(output):
    mean, stages = only(output, "fairness")
    # Exposures in order: single 0, 0, 1, 1, 1.5, 1.5; LightGCN 0, 0, 1, 1, 2, 2.
    assert mean[SINGLE] == pytest.approx({"worst group recall@2": 0, "gap": 0.5, "Gini": 12 / 30})
    assert mean[TOWERS] == pytest.approx({"worst group recall@2": 1, "gap": 0, "Gini": 16 / 36})
    assert stages[f"stage 2: {TOWERS}"] == pytest.approx(
        {"new": 1, "returning": 1, "dormant": None, **mean[TOWERS], "smallest group": 1}
    )


def test_figures_are_means_over_seeds(tmp_path):
    dataset, lists = world(tmp_path / "data"), [["i3", "i0"]] * 3
    for seed, rank in ((1, 1), (2, None)):
        places = [(rank, rank, 1), (None, None, 1), (None, None, 1)]
        for method in ("single", "peso"):
            run(tmp_path / "runs", dataset, tmp_path / "data", method, lists, places, seed=seed)
    answer = peso("analyse", "--only", "groups", "--output", tmp_path / "runs", "--format", "json").document
    (row,) = [row for row in answer["tables"][0]["rows"] if row["name"] == "returning: peso"]
    assert row["cells"]["recall@2"] == {**row["cells"]["recall@2"], "mean": 0.25, "count": 2}
    assert row["cells"]["recall@2"]["std"] == pytest.approx(math.sqrt(0.125))
    assert row["cells"]["users"]["mean"] == 2


def test_one_method_alone_has_everything_but_overlap(output):
    answer = peso("analyse", "method=single", "--output", output, "--format", "json")
    assert answer.code == 0
    assert "left out: overlap of toy, tiny: needs a second method beside single" in answer.err
    titles = [table["title"] for table in answer.document["tables"]]
    assert len(titles) == 11
    assert all(title.startswith("toy, tiny: ") for title in titles)
    refused(peso("analyse", "method=single", "--only", "overlap", "--output", output), "nothing to show of overlap")


def test_without_the_data_what_rests_on_predictions_alone_remains(output, tmp_path):
    alone = Path(shutil.copytree(output, tmp_path / "runs"))
    for config in alone.rglob("config.yaml"):
        config.write_text(config.read_text().replace(str(output.parent / "data"), str(tmp_path / "gone")))
    answer = peso("analyse", "--output", alone, "--format", "json")
    assert answer.code == 0, answer.err
    assert len(answer.document["tables"]) == 3
    for section in ("activity", "age", "calibration", "coverage", "drift", "fairness", "popularity"):
        assert (
            f"left out: {section} of toy, lightgcn, tiny: dataset.path={tmp_path / 'gone'}: no such folder"
            in " ".join(answer.err.split())
        )


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex", "csv"])
def test_every_format_holds_the_same_figures(output, form):
    answer = peso("analyse", "--output", output, "--only", "fairness", "--only", "groups", "--format", form)
    assert answer.code == 0, answer.err
    assert answer.out.count("0.4444") == 2
    if form == "csv":
        assert {row["method"] for row in csv.DictReader(io.StringIO(answer.out))} == {SINGLE, TOWERS, ""}


def test_many_methods_are_compared_with_the_baseline_alone(tmp_path):
    dataset, lists = world(tmp_path / "data"), [["i3", "i0"]] * 3
    methods = ("pretrain", "single", "peso", "l2", "full", "retrain", "replay")
    for method in methods:
        run(tmp_path / "runs", dataset, tmp_path / "data", method, lists, [(1, 1, 1), (None, None, 1), (None, None, 1)])
    (rows,) = only(tmp_path / "runs", "overlap")
    assert len(rows) == len(methods) - 1
    assert all(name.startswith("single | ") for name in rows)
    (rows,) = only(tmp_path / "runs", "overlap", "--baseline", "")
    assert len(rows) == len(methods) * (len(methods) - 1) / 2
    (rows,) = only(tmp_path / "runs", "overlap", "method=peso,single,l2")
    assert list(rows) == ["single | peso", "single | l2", "peso | l2"]


def changed(folder, **columns):
    path = folder / "predictions.parquet"
    pl.read_parquet(path).with_columns(**{name: pl.Series(values) for name, values in columns.items()}).write_parquet(
        path
    )


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"items": [["i3"], ["i3", "i0"], ["i3", "i0"]]}, "differ in length"),
        ({"sharing": [1, 0, 1]}, "is damaged"),
        ({"rank": [1, -1, None]}, "is damaged"),
        ({"group": ["new", "new", "\x1b[31mold"]}, "is no group of users"),
        ({"scores": [[-1.0, math.nan]] * 3}, "a score is no number"),
        ({"scores": ["a", "b", "c"]}, "can't be read"),
        ({"user": ["u", "v", None]}, "column user lacks values"),
        ({"user": ["u", "w", "v"]}, "is of other users than stage 2"),
        ({"target": ["i3", "i4", "i4"]}, "is of other users than stage 2"),
    ],
)
def test_damaged_predictions_are_one_line(output, tmp_path, columns, part):
    copy = Path(shutil.copytree(output, tmp_path / "runs"))
    (folder,) = copy.glob("toy/tiny/single/*/seed_1/stage_2")
    changed(folder, **columns)
    refused(peso("analyse", "--output", copy), str(folder / "predictions.parquet"), part, code=1)


def test_predictions_of_an_older_version_leave_all_out(output, tmp_path):
    copy = Path(shutil.copytree(output, tmp_path / "runs"))
    (folder,) = copy.glob("toy/tiny/single/*/seed_1/stage_2")
    path = folder / "predictions.parquet"
    pl.read_parquet(path).drop("sharing").write_parquet(path)
    answer = peso("analyse", "--output", copy)
    refused(answer, "nothing to show")
    assert "has no column sharing" in " ".join(answer.err.split())


@pytest.mark.parametrize("seed", seeds(30))
def test_files_that_were_damaged_by_anyone_are_named_or_left_out(output, tmp_path, seed):
    random = Random(seed)
    for case in range(8):
        copy = Path(shutil.copytree(output, tmp_path / str(case)))
        harm(copy, random)
        harmless(peso("analyse", "--mix", "--output", copy, "--format", random.choice(("terminal", "json"))))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--only", "overlaps"], ["analyse --only overlaps: no such section (did you mean overlap?)"]),
        (["--format", "jsn"], ["--format jsn", "did you mean json"]),
        (["method=pesto"], ["no such method"]),
        (["method=peso"], ["nothing finished"]),
        (["--config-dir", "nowhere"], ["--config-dir nowhere: no such folder"]),
        (["--output", "nowhere"], ["--output nowhere: no such folder"]),
        (["method"], ["can't be read; write KEY=VALUE"]),
    ],
)
def test_wrong_input_is_one_line(output, words, parts):
    where = [] if "--output" in words else ["--output", output]
    refused(peso("analyse", *words, *where), *parts)


def test_runs_on_other_data_are_not_mixed_unless_asked_for(output, tmp_path):
    copy = Path(shutil.copytree(output, tmp_path / "runs"))
    (folder,) = copy.glob("toy/tiny/single/*/seed_1/stage_2")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["data"] = {"2": "other"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    refused(peso("analyse", "--output", copy), "differ in the data", "--mix")
    changed(folder, target=["i3", "i4", "i4"])
    answer = peso("analyse", "--output", copy, "--mix", "--only", "overlap", "--format", "json")
    (row,) = answer.document["tables"][0]["rows"]
    assert {cell["missing"] for cell in row["cells"].values()} == {"they scored different users"}


def test_bins_of_trained_runs_add_up_to_the_figures_of_their_metrics(mixed):
    records = {
        name: json.loads(next(mixed.glob(f"synthetic/{place}/*/seed_1/stage_3/metrics.json")).read_text())
        for name, place in (("peso, tiny", "tiny/peso"), ("two_tower_finetune, sasrec", "sasrec/two_tower_finetune"))
    }
    tables = analysed(mixed, "stage=3", "method=peso,two_tower_finetune")
    assert len(tables) == 12
    for name, metrics in records.items():
        known = metrics["evaluated"]["3"]["test"]
        for title in ("activity", "history length", "target popularity", "target age", "user group", "user drift"):
            rows = [row for key, row in tables[f"by {title}, stage 3"][0].items() if key.endswith(f": {name}")]
            assert sum(row["users"] for row in rows) == known["users"]
            for figure in ("recall@10", "ndcg@10"):
                mean = sum(row["users"] * row[figure] for row in rows) / known["users"]
                assert mean == pytest.approx(known["item"][figure])
    ((pair, row),) = tables["overlap of hits, recall@10, stage 3"][0].items()
    assert pair == "two_tower_finetune, sasrec | peso, tiny"
    towers = records["two_tower_finetune, sasrec"]["evaluated"]["3"]["test"]["item"]["recall@10"]
    assert row["only first"] + row["both"] == pytest.approx(towers)


def test_an_analysis_imports_no_model(mixed):
    """Reports read files; with many runs they must not wait for torch."""
    import subprocess
    import sys

    code = "import sys; sys.argv = ['peso', 'analyse', '--output', sys.argv[1]]\nfrom peso_cli.cli import _run\n"
    code += "assert _run() == 0\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code, str(mixed)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
