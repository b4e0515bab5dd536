"""Artifacts of every format so far: this version reads them, or says in one line what to do."""

import json
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest
from commands.running import files_of, peso, refused
from compatibility.samples import BUILT, COLUMNS, HERE, IDS, LOG, SPLIT, STOPPED_AT, SWEEP, WORDS
from safetensors import safe_open

from peso_cli.artifacts import FORMAT, Artifact
from peso_cli.config.compose import compose
from peso_cli.errors import RunError
from peso_cli.marks import sealed
from peso_cli.reports.collected import collect
from peso_cli.reports.filling import training_gap
from peso_cli.stages import open_run
from peso_cli.sweeps.ledger import Ledger
from peso_cli.training import checkpoints

STAGES = [("base", 1), ("peso", 2), ("peso", 3)]
"""What is finished."""

KEPT = sorted(HERE.glob("v*"))


@pytest.fixture(params=KEPT, ids=lambda folder: folder.name)
def samples(request, tmp_path, monkeypatch) -> Path:
    """A copy of a format's samples, in which the test then is."""
    folder = Path(shutil.copytree(request.param, tmp_path / "samples"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A copy of the samples of this version's own format, in which the test then is."""
    folder = Path(shutil.copytree(HERE / f"v{FORMAT}", tmp_path / "samples"))
    monkeypatch.chdir(folder)
    return folder


def only(pattern: str) -> Path:
    (found,) = Path().glob(pattern)
    return found


def stage(method: str, number: int) -> Path:
    found = Path().glob(f"runs/toy/tiny/{method}/*/seed_1/stage_{number}")
    (whole,) = [folder for folder in found if not Artifact(folder).diverged]
    return whole


# What this version leaves behind says of which format it is


def test_samples_of_this_format_are_kept():
    assert (HERE / f"v{FORMAT}").is_dir(), "the format is new: make its samples by bash scripts/samples"


def test_everything_says_of_which_format_it_is(own):
    names = ("DONE", "DIVERGED", "lineage.json", "plan.json", "ledger.json", "dataset.json", "tokenizer.json")
    documents = [path for name in (*names, "stage.json") for path in own.rglob(name)]
    assert len(documents) == 3 + 1 + 5 + 1 + 1 + 1 + 1 + 2
    assert {json.loads(path.read_text())["format"] for path in documents} == {FORMAT}
    with safe_open(only("runs/toy/tiny/single/*/seed_1/stage_2/checkpoint.safetensors"), framework="pt") as file:
        assert file.metadata()["format"] == checkpoints.FORMAT


# Reading


def test_runs_are_listed(samples):
    rows = peso("runs", "--output", "runs", "--json").document
    assert sorted((row["method"], row["stage"], row["state"]) for row in rows) == [
        ("base", 1, "finished"),
        ("peso", 2, "diverged"),
        ("peso", 2, "finished"),
        ("peso", 3, "finished"),
        ("single", 2, "unfinished"),
    ]


def test_the_commands_that_peso_names_lead_to_every_stage_whatever_defaults_are_now(samples):
    records = [record for record in collect(Path("runs"), pytest.fail) if record.own]
    assert [(record.place.method, record.place.stage) for record in records] == STAGES
    for record in records:
        words = [*training_gap(record, record.place.seed, record.place.stage, "peso").words, "output=runs"]
        run = open_run(compose(words))
        assert run.artifact(record.place.stage).folder.resolve() == record.folder.resolve()
        run.require(record.place.stage)


def test_finished_stages_are_verified_and_reused(samples):
    before = files_of(samples)
    answer = peso("train", *WORDS, "method=peso", "stage=1..3")
    assert answer.code == 0, answer.err
    assert answer.err.count("reusing") == 3
    assert files_of(samples) == before


def test_known_figures_are_shown_and_others_are_worked_out_from_the_weights(samples):
    before = files_of(samples)
    known = (
        ("stage=2", "evaluation.on=[1,2]"),
        ("stage=3",),
        ("stage=3", "decoding=positional"),
    )
    for more in known:
        assert peso("evaluate", *WORDS, "method=peso", *more, "decoding.beams=10").code == 0
    assert files_of(samples) == before
    answer = peso("evaluate", *WORDS, "method=peso", "stage=3", "evaluation.split=valid", "--json")
    assert answer.code == 0, answer.err
    metrics = json.loads((stage("peso", 3) / "metrics.json").read_text())["evaluated"]["3"]
    assert metrics["valid"]["users"] == metrics["test"]["users"]


def test_the_weights_recommend_what_they_recommended(samples):
    row = pl.read_parquet(stage("peso", 3) / "predictions.parquet").row(0, named=True)
    of_user = ("--stage", "3", "--split", "test", "--user", row["user"])
    history = json.loads(peso("data", "examples", *WORDS, *of_user).out)["history"]
    answer = peso("recommend", *WORDS, "method=peso", "stage=3", "--history", ",".join(history), "--json")
    assert answer.code == 0, answer.err
    found = answer.document["items"]
    # Other machines add up in other orders.
    assert [item["score"] for item in found] == pytest.approx(row["scores"], abs=1e-3)
    assert {item["item"] for item in found[:5]} <= set(row["items"][:7])


@pytest.mark.parametrize("table", ["main", "efficiency", "forgetting", "datasets"])
def test_tables_are_made(samples, table):
    answer = peso("tables", table, "--output", "runs", "--format", "markdown")
    assert (answer.code, "left out" in answer.err) == (0, False), answer


def test_a_report_is_made(samples):
    answer = peso("report", "--output", "runs", "--to", "page.html")
    assert answer.code == 0, answer.err
    assert "left out" not in answer.err


def test_an_unfinished_stage_goes_on_from_its_checkpoint(samples):
    folder = stage("single", 2)
    begun = (folder / "log.jsonl").read_bytes()
    answer = peso("train", *WORDS, "method=single", "stage=2")
    assert answer.code == 0, answer.err
    assert f"stage 2: resuming {folder}" in answer.err
    assert (folder / "log.jsonl").read_bytes().startswith(begun)
    assert json.loads((folder / "metrics.json").read_text())["training"]["steps"] > STOPPED_AT
    Artifact(folder).verify(json.loads((folder / "lineage.json").read_text())["fingerprint"])


def test_a_diverged_stage_is_told_of(samples):
    answer = peso("train", *WORDS, "method=peso", "stage=2", "regularizer.strength=1e300")
    refused(answer, "diverged when it was last trained", "step 1: ", "Lower regularizer.strength", code=1)


def test_a_sweep_knows_how_its_runs_stand(samples):
    answer = peso("sweep", *SWEEP, "--plan", "--json")
    assert answer.code == 0, answer.err
    assert answer.document["states"] == {"done": 1, "running": 0, "failed": 1, "missing": 0}
    assert Path(answer.document["folder"]) == only("runs/sweeps/*")


def test_the_index_file_is_read(samples):
    answer = peso("data", "examples", *WORDS, "--stage", "2", "--split", "test", "--user", "user3")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["target"].startswith("item")


def test_a_built_dataset_and_its_semantic_ids_are_read_and_reused(samples):
    before = files_of(samples)
    answer = peso("data", "examples", *BUILT, "--stage", "2", "--split", "test")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out.splitlines()[0])["target"].startswith("i")
    for command in (("data", "build", *LOG, *COLUMNS, *SPLIT), ("tokenize", *BUILT, *IDS)):
        answer = peso(*command)
        assert answer.code == 0, answer.err
    assert files_of(samples) == before


# Other formats


OTHER = pytest.mark.parametrize("other", [FORMAT - 1, FORMAT + 1], ids=["older", "newer"])


def rewrite(path: Path, **changes) -> dict:
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document))
    return document


@OTHER
@pytest.mark.parametrize("name", ["lineage.json", "DONE"])
def test_a_finished_stage_of_another_format_is_refused_and_never_touched(own, other, name):
    folder = stage("peso", 3)
    document = rewrite(folder / name, format=other)
    if name == "DONE":
        (folder / name).write_text(json.dumps(sealed({k: v for k, v in document.items() if k != "checksum"})))
    else:
        Artifact(folder).finish()
    before = files_of(own)
    words = (*WORDS, "method=peso", "stage=3")
    for command in (("train", *words), ("train", *words, "--repair"), ("evaluate", *words)):
        refused(peso(*command), f"{folder / name}: is of format {other}", f"has format {FORMAT}", "peso 0.", "output=")
    assert files_of(own) == before


@OTHER
def test_lists_and_tables_leave_out_what_is_of_another_format_in_a_line(own, other):
    rewrite(stage("peso", 3) / "lineage.json", format=other)
    for command in (("runs",), ("tables", "main")):
        answer = peso(*command, "--output", "runs")
        assert answer.code == 0, answer
        (line,) = [line for line in answer.err.splitlines() if "left out" in line]
        assert f"is of format {other}" in line


@OTHER
def test_an_unfinished_stage_of_another_format_is_refused_and_never_touched(own, other):
    folder = stage("single", 2)
    rewrite(folder / "lineage.json", format=other)
    before = files_of(own)
    for more in ((), ("--repair",)):
        refused(peso("train", *WORDS, "method=single", "stage=2", *more), f"{folder}", f"is of format {other}")
    assert files_of(own) == before


@OTHER
def test_a_checkpoint_of_another_format_is_refused_and_never_touched(own, other, monkeypatch):
    path = stage("single", 2) / "checkpoint.safetensors"
    content = checkpoints.load_checkpoint(path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", str(other))
        checkpoints.save_checkpoint(path, content)
    before = files_of(own)
    for more in ((), ("--repair",)):
        answer = peso("train", *WORDS, "method=single", "stage=2", *more)
        refused(answer, f"{path}: is of format {other}", "finish the stage with the version that began it")
    assert files_of(own) == before


@OTHER
def test_a_sweep_of_another_format_says_to_give_its_command_again_which_works(own, other):
    folder = only("runs/sweeps/*")
    rewrite(folder / "plan.json", format=other)
    with pytest.raises(RunError, match=rf"plan.json: .* of format {other}, .* give the sweep's command again"):
        _ = Ledger(folder).jobs
    assert peso("sweep", *SWEEP, "--plan").code == 0


@OTHER
@pytest.mark.parametrize("name", ["dataset.json", "stage_2/stage.json", "semantic_ids/rq_kmeans/tokenizer.json"])
def test_a_dataset_of_another_format_is_refused_with_its_mend(own, other, name):
    rewrite(Path("shop") / name, format=other)
    answer = peso("data", "examples", *BUILT, "--stage", "2", "--split", "test")
    assert answer.code in (1, 2)
    (line,) = answer.err.splitlines()
    for part in (f"shop/{name}: has format {other}", "again"):
        assert part in line


# A default that has changed


@pytest.mark.parametrize(
    "word",
    ["trainer.patience=9", "trainer.later_stage_scale=0.7", "regularizer.strength=5", "backbone.lora.alpha=3"],
)
def test_what_was_trained_under_another_default_is_named_with_the_setting_that_leads_to_it(own, word):
    words = ("evaluate", *WORDS, "method=peso", "stage=2")
    line = refused(peso(*words, word), "isn't trained with these settings", "; to use runs/toy/tiny/", "first run: ")
    hint = line.partition(", give ")[2].partition("; first run: ")[0]
    assert hint.startswith(word.partition("=")[0] + "=")
    assert peso(*words, word, *shlex.split(hint)).code == 0
