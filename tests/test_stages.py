import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from commands.running import SMALL, Trained, files_of, learnt, peso, refused
from hypothesis import given
from hypothesis import strategies as st
from worlds import write_released

from peso_cli import artifacts
from peso_cli.errors import InputError
from peso_cli.evaluation import figures
from peso_cli.stages import wanted_stages
from peso_cli.training import checkpoints, loop

FIVE = SimpleNamespace(name="five", stages=5)


# Reading stage=


@pytest.mark.parametrize(
    ("stage", "stages"),
    [(1, (1,)), (5, (5,)), ("all", (1, 2, 3, 4, 5)), ("2..4", (2, 3, 4)), ("3..3", (3,)), ((3, 1, 3), (1, 3))],
)
def test_wanted_stages(stage, stages):
    assert wanted_stages(stage, FIVE) == stages


@given(st.integers(-3, 9), st.integers(-3, 9))
def test_a_range_is_what_lies_between_or_an_error(first, last):
    if 1 <= first <= last <= 5:
        assert wanted_stages(f"{first}..{last}", FIVE) == tuple(range(first, last + 1))
    else:
        with pytest.raises(InputError, match=rf"^stage={first}\.\.{last}: "):
            wanted_stages(f"{first}..{last}", FIVE)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (6, "stage=6: five has stages 1 to 5"),
        (0, "stage=0: five has stages 1 to 5"),
        ((2, 7), "stage=[2, 7]: five has stages 1 to 5"),
        ("4..6", "stage=4..6: five has stages 1 to 5"),
        ("first", "stage=first: give a number, several (1..3 or [1,3]) or all"),
        ("x..3", "stage=x..3: give a number, several (1..3 or [1,3]) or all"),
        ("3", "stage=3: give a number, several (1..3 or [1,3]) or all"),
        ("1..1234567890", "stage=1..1234567890: give a number, several (1..3 or [1,3]) or all"),
        ("²..³", "stage=²..³: give a number, several (1..3 or [1,3]) or all"),
    ],
)
def test_stages_that_are_not_there(stage, message):
    with pytest.raises(InputError) as caught:
        wanted_stages(stage, FIVE)
    assert str(caught.value) == message


# Interrupted, then started again


def interrupt(monkeypatch, module, name, call, when=lambda *args: True):
    """Let the call-th call of a function end as Ctrl-C does."""
    original, seen = getattr(module, name), []

    def interrupted(*args, **kwargs):
        seen.append(when(*args))
        if seen[-1] and sum(seen) == call:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)


def in_training(model, *_):
    return model.training


POINTS = {
    "between the batches of a step": lambda m: interrupt(m, loop, "label_loss", 4, when=in_training),
    "before an epoch's validation": lambda m: interrupt(m, loop, "validation_loss", 2),
    "in the scoring": lambda m: interrupt(m, figures, "write_predictions", 1),
    "before the mark": lambda m: interrupt(m, artifacts.Artifact, "finish", 1),
}
STAGES = {"stage 1": ("base", 1), "single": ("single", 2), "peso": ("peso", 3)}


def without(trained: Trained, tmp_path, method: str, stage: int) -> Trained:
    """A copy of what is trained, as it was before a stage of a method came into being."""
    copy = Trained(shutil.copytree(trained.output, tmp_path / "outputs"))
    for folder in copy.output.glob("synthetic/tiny/*/*/seed_1/stage_*"):
        name, number = folder.parts[-4], int(folder.parts[-1].removeprefix("stage_"))
        if stage == 1 or name not in (method, "base") or (name == method and number >= stage):
            shutil.rmtree(folder)
    return copy


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("kind", STAGES)
def test_an_interrupted_stage_ends_as_if_it_had_never_been_stopped(trained, tmp_path, monkeypatch, kind, point):
    method, stage = STAGES[kind]
    here = without(trained, tmp_path, method, stage)
    name = "peso" if method == "base" else method
    command = ("train", f"stage={stage}", f"method={name}", "trainer.checkpoint_minutes=0", *here.arguments())
    with monkeypatch.context() as patch:
        POINTS[point](patch)
        stopped = peso(*command)
    assert stopped.code == 130
    assert "interrupted; the same command goes on" in stopped.err
    folder = here.folder(method, stage)
    assert not (folder / "DONE").exists()

    again = peso(*command)
    assert again.code == 0
    assert f"stage {stage}: resuming {folder}" in again.err.splitlines()
    assert "Warning" not in again.err
    assert learnt(folder) == learnt(trained.folder(method, stage))
    assert "checkpoint.safetensors" not in files_of(folder)


def test_a_stage_stopped_before_its_first_checkpoint_begins_anew(trained, tmp_path, monkeypatch):
    here = without(trained, tmp_path, "base", 1)
    command = ("train", "stage=1", *here.arguments())
    with monkeypatch.context() as patch:
        interrupt(patch, loop, "label_loss", 3, when=in_training)
        assert peso(*command).code == 130
    answer = peso(*command)
    assert f"stage 1: training {here.folder('base', 1)}" in answer.err.splitlines()
    assert learnt(here.folder("base", 1)) == learnt(trained.folder("base", 1))


def test_a_resumed_stage_takes_only_the_steps_that_were_missing(trained, tmp_path, monkeypatch):
    def batches_of(*command):
        taken, original = [], loop.label_loss
        with monkeypatch.context() as patch:
            patch.setattr(
                loop, "label_loss", lambda model, *rest: (taken.append(model.training), original(model, *rest))[1]
            )
            assert peso(*command).code == 0
        return sum(taken)

    here = without(trained, tmp_path, "base", 1)
    command = ("train", "stage=1", "trainer.checkpoint_minutes=0", *here.arguments())
    with monkeypatch.context() as patch:
        interrupt(patch, loop, "label_loss", 4, when=in_training)
        assert peso(*command).code == 130
    missing = batches_of(*command)
    shutil.rmtree(here.folder("base", 1))
    assert missing == batches_of(*command) - 2  # two batches a step, the first step's were done


def test_without_time_for_a_checkpoint_there_is_one_at_every_epoch(trained, tmp_path, monkeypatch):
    here = without(trained, tmp_path, "base", 1)
    saved = []
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda path, checkpoint: saved.append(checkpoint.progress))
    assert peso("train", "stage=1", "trainer.checkpoint_minutes=60", *here.arguments()).code == 0
    assert [(p["epoch"], p["step_in_epoch"]) for p in saved] == [(1, 0), (2, 0)]


def test_with_no_minutes_between_checkpoints_there_is_one_at_every_step(trained, tmp_path, monkeypatch):
    here = without(trained, tmp_path, "base", 1)
    saved = []
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda path, checkpoint: saved.append(checkpoint.progress))
    assert peso("train", "stage=1", "trainer.checkpoint_minutes=0", *here.arguments()).code == 0
    steps = [p["step"] for p in saved if p["step_in_epoch"]]
    assert steps == list(range(1, saved[-1]["step"] + 1))


SLOW = """
import time
from peso_cli.training import loop
original = loop.label_loss
loop.label_loss = lambda *args: (time.sleep(0.1), original(*args))[1]
from peso_cli.cli import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_saves_and_the_same_command_goes_on(trained, tmp_path):
    here = without(trained, tmp_path, "base", 1)
    command = ("train", "stage=1", *here.arguments())
    with subprocess.Popen([sys.executable, "-c", SLOW, *command], stderr=subprocess.PIPE, text=True) as process:
        waited = time.monotonic()
        while not any(b'"loss"' in log.read_bytes() for log in here.output.rglob("log.jsonl")):
            assert process.poll() is None
            assert time.monotonic() - waited < 60
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert (
        errors.splitlines()[-1]
        == "peso: interrupted; the same command goes on from what is finished, and from a stage's last checkpoint"
    )
    assert "Traceback" not in errors
    assert (here.folder("base", 1) / "checkpoint.safetensors").is_file()
    again = peso(*command)
    assert "stage 1: resuming" in again.err
    assert learnt(here.folder("base", 1)) == learnt(trained.folder("base", 1))


def test_a_stage_stopped_just_behind_its_mark_is_finished_and_loses_its_checkpoint(copied):
    folder = copied.folder("peso", 2)
    (folder / "checkpoint.safetensors").write_bytes(b"of no use any more")
    answer = peso("train", "stage=2", "method=peso", *copied.arguments())
    assert answer.code == 0
    assert f"stage 2: reusing {folder}" in answer.err.splitlines()
    assert not (folder / "checkpoint.safetensors").exists()


# What is damaged or was made otherwise


def test_a_damaged_checkpoint_is_one_line_and_nothing_is_overwritten(trained, tmp_path, monkeypatch):
    here = without(trained, tmp_path, "single", 2)
    command = ("train", "stage=2", "method=single", "trainer.checkpoint_minutes=0", *here.arguments())
    with monkeypatch.context() as patch:
        interrupt(patch, loop, "validation_loss", 2)
        assert peso(*command).code == 130
    path = here.folder("single", 2) / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    before = files_of(here.output)
    refused(peso(*command), str(path), "damaged", "remove it", code=1)
    assert files_of(here.output) == before
    path.unlink()
    assert peso(*command).code == 0
    assert learnt(here.folder("single", 2)) == learnt(trained.folder("single", 2))


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "changed since": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("method", "stage", "name"),
    [
        ("base", 1, "model/model.safetensors"),
        ("peso", 2, "adapter/adapter_model.safetensors"),
        ("peso", 2, "predictions.parquet"),
    ],
)
def test_a_damaged_finished_stage_is_one_line_and_nothing_is_overwritten(copied, method, stage, name, damage):
    path = copied.folder(method, stage) / name
    DAMAGE[damage](path)
    before = files_of(copied.output)
    for command in ("train", "evaluate"):
        refused(peso(command, "stage=3", *copied.arguments()), str(path), damage, code=1)
    refused(peso("recommend", "stage=3", "--history", "item1", *copied.arguments()), str(path), damage, code=1)
    assert files_of(copied.output) == before


def test_nothing_is_trained_on_top_of_a_damaged_stage(copied):
    DAMAGE["changed since"](copied.folder("base", 1) / "model/model.safetensors")
    before = files_of(copied.output)
    refused(peso("train", "stage=2", "method=l2", *copied.arguments()), "model.safetensors: changed since", code=1)
    assert files_of(copied.output) == before


@pytest.mark.parametrize("content", [None, "{"])
def test_damaged_metrics_are_one_line(copied, content):
    path = copied.folder("peso", 2) / "metrics.json"
    path.unlink() if content is None else path.write_text(content)
    for command in ("train", "evaluate"):
        refused(peso(command, "stage=2", *copied.arguments()), str(path), "can't be read", code=1)


def test_a_name_for_other_settings_is_refused_and_nothing_is_overwritten(copied):
    command = ("train", "stage=2", "method=single", "variant=mine", *copied.arguments())
    assert peso(*command).code == 0
    before = files_of(copied.output)
    for command_name in ("train", "evaluate"):
        answer = peso(command_name, *command[1:], "backbone.lora.rank=4")
        refused(answer, "/single/mine/", "other settings or other data", "variant=")
    assert files_of(copied.output) == before
    assert peso(*command).code == 0


# Data that changes

ITEMS = [f"i{n}" for n in range(12)]
INDEX = {item: [f"<a_{n // 4}>", f"<b_{n % 4}>"] for n, item in enumerate(ITEMS)}


def events(start: int) -> dict:
    """A block of four users who walk through the items."""
    return {
        f"u{u}": {
            "previous_block": [ITEMS[(u + n) % 12] for n in range(start)],
            "current_block": [ITEMS[(u + n) % 12] for n in range(start, start + 5)],
        }
        for u in range(4)
    }


@pytest.fixture
def released(tmp_path):
    """The overrides of a trained run on a small released dataset, and the dataset's folder."""
    data = write_released(tmp_path / "data", INDEX, {0: events(0), 1: events(5), 2: events(10)})
    settings = [s for s in SMALL if not s.startswith("dataset")]
    settings += ["dataset=released", "dataset.name=toy", f"dataset.path={data}", f"output={tmp_path / 'outputs'}"]
    arguments = (*settings, "method=single", "trainer.epochs=1")
    assert peso("train", "stage=2", *arguments).code == 0
    return arguments, data


def change(data, number):
    block = events(5 * number)
    block["u0"]["current_block"][2] = "i11"
    write_released(data, INDEX, {number: block})


@pytest.mark.parametrize(("number", "stage"), [(0, 1), (1, 2)])
def test_a_finished_stage_made_from_other_data_is_refused(released, tmp_path, number, stage):
    arguments, data = released
    change(data, number)
    before = files_of(tmp_path / "outputs")
    for command in ("train", "evaluate"):
        answer = peso(command, "stage=2", *arguments)
        refused(answer, f"stage_{stage}: was made from other settings or other data", "output=")
    assert files_of(tmp_path / "outputs") == before


def test_an_unfinished_stage_made_from_other_data_is_refused(released, tmp_path, monkeypatch):
    arguments, data = released
    with monkeypatch.context() as patch:
        interrupt(patch, figures, "write_predictions", 1)
        assert peso("train", "stage=3", *arguments).code == 130
    change(data, 2)
    before = files_of(tmp_path / "outputs")
    refused(peso("train", "stage=3", *arguments), "stage_3: was made from other settings or other data")
    assert files_of(tmp_path / "outputs") == before


def test_figures_on_a_stage_whose_data_has_changed_are_taken_anew(released):
    arguments, data = released
    command = ("evaluate", "stage=2", "evaluation.on=[3]", "--json", *arguments)
    before = peso(*command).document
    assert peso("evaluate", "stage=2", "evaluation.on=[3]", "evaluation.split=valid", *arguments).code == 0
    block = {user: lists for user, lists in events(10).items() if user != "u3"}
    write_released(data, INDEX, {2: block})
    after = peso(*command).document
    assert before["evaluated"]["3"]["test"]["users"] == 4
    assert after["evaluated"]["3"]["test"]["users"] == 3
    assert set(after["evaluated"]["3"]) == {"test"}  # what was known of the other split was of the data of before
    assert after["evaluated"]["2"] == before["evaluated"]["2"]


def test_a_stage_whose_file_is_missing_says_which(released):
    arguments, data = released
    (data / "toy.all.block_1.json").unlink()
    refused(peso("train", "stage=3", *arguments), "stage 2 needs", "toy.all.block_1.json", "missing")


def test_data_may_move(released, tmp_path):
    arguments, data = released
    data.rename(tmp_path / "moved")
    moved = [a.replace(f"{data}", f"{tmp_path / 'moved'}") for a in arguments]
    answer = peso("train", "stage=2", *moved)
    assert answer.code == 0
    assert "training" not in answer.err
