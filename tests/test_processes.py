"""A run of several processes: the same numbers as one, everyone scored once; a death or a stop leaves all resumable."""

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands.running import SMALL, peso
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pretrained import save_pretrained
from safetensors.numpy import load_file
from team import start_together, together

from peso_cli import processes
from peso_cli.artifacts import find_artifacts
from peso_cli.config.compose import compose, conf_folder
from peso_cli.tracking.run_log import read_log

WORDS = (*SMALL, "backbone.attention_dropout=0.0")
SAMPLE = {"peso", "output_kl", "distill", "ewc", "inflora_all", "replay", "full"}


def methods() -> list:
    return [
        name if name in SAMPLE else pytest.param(name, marks=pytest.mark.long)
        for name in sorted(path.stem for path in (conf_folder() / "method").glob("*.yaml"))
        if not name.startswith("two_tower")  # they train in one process
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Stages 1 and 2 by one process."""
    output = tmp_path_factory.mktemp("alone")
    assert peso("train", "stage=2", "method=peso", f"output={output}", *WORDS).code == 0
    return output


@pytest.fixture
def based(alone, tmp_path) -> Path:
    """An output folder in which stage 1 is there."""
    (base,) = alone.glob("*/*/base")
    shutil.copytree(base, tmp_path / "outputs" / base.relative_to(alone))
    return tmp_path / "outputs"


def last(output: Path, stage: int = 2):
    """The finished artifact of a stage."""
    (found,) = [a for a in find_artifacts(output) if a.folder.name == f"stage_{stage}" and a.finished]
    return found


def learnt(artifact) -> dict[str, np.ndarray]:
    return {
        f"{path.name}/{name}": value
        for folder in (artifact.adapter, artifact.weights)
        if folder
        for path in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def assert_alike(one, other, rel: float = 1e-4, loose: float = 0.02) -> None:
    """Check that two artifacts hold the same results but for float32's rounding: the first steps, and the weights."""
    ours, theirs = one.metrics(), other.metrics()
    assert ours["training"].keys() == theirs["training"].keys()
    for name in ("epochs", "steps", "best_epoch", "trained_parameters"):
        assert ours["training"][name] == theirs["training"][name]
    for row, wanted in zip(ours["training"]["history"], theirs["training"]["history"], strict=True):
        assert row == pytest.approx(wanted, rel=2e-3, abs=1e-6)
    for step in (1, 2):
        ours, theirs = (read_log(artifact.folder / "log.jsonl")[step] for artifact in (one, other))
        assert (ours.pop("event"), theirs.pop("event")) == ("train", "train")
        assert ours == pytest.approx(theirs, rel=rel, abs=1e-7)
    weights, wanted = learnt(one), learnt(other)
    assert weights.keys() == wanted.keys()
    for name, value in weights.items():
        # AdamW turns the rounding of a gradient next to zero into a step of full size: not each number is alike.
        assert np.linalg.norm(value - wanted[name]) <= loose * np.linalg.norm(wanted[name]), name
    users, expected = (pq.read_table(a.folder / "predictions.parquet")["user"].to_pylist() for a in (one, other))
    assert users == expected
    assert len(set(users)) == len(users)


@pytest.mark.parametrize("method", methods())
def test_two_processes_learn_what_one_does(method, based, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(based, alone)
    assert peso("train", "stage=2", f"method={method}", f"output={alone}", *WORDS).code == 0
    first, second = together(2, tmp_path / "two", "train", "stage=2", f"method={method}", f"output={based}", *WORDS)
    assert (first.code, second.code) == (0, 0), first.err
    if compose([f"method={method}"]).config.adapter.trains:
        # Each process reads the template's head, whose tokens count for the divergence of outputs.
        assert_alike(last(based), last(alone), *((5e-3, 0.3) if method == "output_kl" else ()))
    assert first.out.replace(str(based), "") == peso(
        "train", "stage=2", f"method={method}", f"output={based}", *WORDS
    ).out.replace(str(based), "")


def test_stage_1_by_three_processes_is_that_of_one(alone, tmp_path):
    answers = together(3, tmp_path / "three", "train", "stage=1", f"output={tmp_path / 'outputs'}", *WORDS)
    assert [a.code for a in answers] == [0, 0, 0], answers[0].err
    assert_alike(last(tmp_path / "outputs", 1), last(alone, 1))


def test_more_processes_than_a_batch_has_sequences(based, alone, tmp_path):
    words = (*WORDS, "trainer.batch_tokens=16")
    for count, output in ((1, tmp_path / "alone"), (3, tmp_path / "outputs_3")):
        shutil.copytree(based, output)
        answers = together(count, tmp_path / str(count), "train", "stage=1", f"output={output}", *words)
        assert {a.code for a in answers} == {0}, answers[0].err
    newest = [
        max(find_artifacts(tmp_path / name), key=lambda a: a.folder.stat().st_mtime) for name in ("alone", "outputs_3")
    ]
    assert_alike(*newest)


def test_with_dropout_the_same_command_gives_the_same_bytes(tmp_path):
    found = []
    for name in ("one", "other"):
        output = tmp_path / name
        assert together(2, tmp_path / f"{name}_said", "train", "stage=1", f"output={output}", *SMALL)[0].code == 0
        found.append({name: value.tobytes() for name, value in learnt(last(output, 1)).items()})
    assert found[0] == found[1]


def test_evaluation_by_several_gives_the_bytes_of_one(alone, tmp_path):
    words = ("stage=2", "method=peso", "decoding.beams=12", "decoding.batch_tokens=200", "evaluation.on=[1,2]", *WORDS)
    found = []
    for count in (1, 2, 3):
        output = tmp_path / f"outputs_{count}"
        shutil.copytree(alone, output)
        answers = together(count, tmp_path / str(count), "evaluate", f"output={output}", *words, "--json")
        assert {a.code for a in answers} == {0}, answers[0].err
        assert [a.out for a in answers[1:]] == [""] * (count - 1)
        found.append(answers[0].out.replace(str(output), ""))
        found.append(next(last(output).folder.glob("evaluations/*.json")).read_text())
    assert len(set(found[::2])) == len(set(found[1::2])) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sharded_frozen_weights_change_nothing(dtype, tmp_path):
    llm = save_pretrained(tmp_path / "llm")
    words = (*(word for word in WORDS if not word.startswith("backbone.")), "backbone=smollm2_135m", "prompt=instruct")
    words = (*words, f"backbone.model={llm}", f"backbone.dtype={dtype}", "backbone.lora.dropout=0.0")
    found = {}
    for name, count, shard in (("alone", 1, "none"), ("whole", 2, "none"), ("sharded", 2, "frozen")):
        command = ("train", "stage=2", "method=peso", f"output={tmp_path / name}", *words, f"trainer.shard={shard}")
        answers = together(count, tmp_path / f"{name}_said", *command, "trainer.batch_tokens=600")
        assert {a.code for a in answers} == {0}, answers[0].err
        found[name] = last(tmp_path / name)
    for name, value in learnt(found["whole"]).items():
        np.testing.assert_array_equal(learnt(found["sharded"])[name], value)
    assert found["sharded"].metrics()["evaluated"] == found["whole"].metrics()["evaluated"]
    if dtype == "float32":
        assert_alike(found["sharded"], found["alone"])


def test_sharding_says_where_it_does_not_apply(tmp_path):
    words = ("train", f"output={tmp_path / 'outputs'}", "stage=1", *WORDS, "trainer.shard=frozen")
    one, (first, _) = peso(*words), together(2, tmp_path / "said", *words)
    assert (one.code, first.code) == (2, 2)
    assert one.err.splitlines()[-1].startswith("peso: trainer.shard=frozen: needs several processes")
    assert first.err.splitlines()[-1].startswith("peso: trainer.shard=frozen: all weights train in this stage")


def _wait_for(path: Path, lines: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        logs = list(path.rglob("log.jsonl"))
        if logs and logs[0].read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.002)
    raise AssertionError("nothing was trained")


LONG = (*WORDS, "trainer.epochs=40", "trainer.patience=40", "trainer.batch_tokens=32")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    assert peso("train", "stage=1", f"output={output}", *LONG).code == 0
    return output


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_and_one_alone_goes_on(rank, undisturbed, tmp_path):
    output = tmp_path / "outputs"
    team = start_together(2, tmp_path / "said", "train", "stage=1", f"output={output}", *LONG)
    _wait_for(output, 20)
    team.kill(rank)
    left = team.answers()[1 - rank]
    assert left.code == 1
    if rank == 1:
        assert left.err.splitlines()[-1].startswith("peso: another process of this run has ended; the same command")
        assert list(output.rglob("checkpoint.safetensors"))
    assert not [a for a in find_artifacts(output) if a.finished]
    answer = peso("train", "stage=1", f"output={output}", *LONG)
    assert answer.code == 0, answer.err
    assert ("resuming" in answer.err) or rank == 0
    assert_alike(last(output, 1), last(undisturbed, 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_all_stop_at_the_same_step_when_one_is_asked_to(number, undisturbed, tmp_path):
    output = tmp_path / "outputs"
    words = ("train", "stage=1", f"output={output}", *LONG)
    team = start_together(2, tmp_path / "said", *words)
    _wait_for(output, 20)
    team.kill(1, number)
    first, second = team.answers()
    assert (first.code, second.code) == (130, 130)
    assert "peso: interrupted" in first.err
    assert "peso: " not in second.err
    again = together(2, tmp_path / "again", *words)
    assert [a.code for a in again] == [0, 0]
    assert "resuming" in again[0].err
    assert_alike(last(output, 1), last(undisturbed, 1))


def test_a_mistake_is_said_once_and_leaves_nothing(tmp_path):
    words = ("train", "stage=9", f"output={tmp_path / 'outputs'}", *WORDS)
    first, second = together(2, tmp_path / "said", *words)
    assert (first.code, second.code) == (2, 2)
    assert first.err.startswith("peso: stage=9: ")
    assert second.err == ""
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("command", ["runs", "sweep", "tables", "recommend"])
def test_commands_that_are_no_run_refuse_several_processes(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = peso(command, *(["main"] if command == "tables" else []))
    assert answer.code == 2
    assert answer.err.startswith(f"peso: peso {command}: runs in one process")


def test_a_number_of_processes_that_nobody_started_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = peso("train", "stage=1", f"output={tmp_path / 'outputs'}", *WORDS)
    assert answer.code == 2
    assert answer.err.startswith("peso: WORLD_SIZE=2 is set without RANK; ")
    assert not (tmp_path / "outputs").exists()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(), max_size=40), st.integers(1, 7))
def test_shares_are_a_partition(work, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(count))
        shares = []
        for rank in range(count):
            patch.setenv("RANK", str(rank))
            shares.append(list(processes.share(work)))
    assert sorted(chain.from_iterable(shares)) == sorted(work)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.long
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc_per_node", "2"),
        (
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            "2",
            "--num_machines",
            "1",
            "--mixed_precision",
            "no",
        ),
    ],
)
def test_the_launchers_start_it(launcher, alone, tmp_path):
    command = [sys.executable, "-m", *launcher, "-m", "peso_cli", "train", "stage=2", "method=peso"]
    done = subprocess.run(
        [*command, f"output={tmp_path}", *WORDS],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test users of each stage") == 1
    assert_alike(last(tmp_path), last(alone))
