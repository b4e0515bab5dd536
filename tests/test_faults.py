"""Whatever writing fails, and however: one line, nothing half-written is used, and the same command goes on."""

import errno
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from commands.running import SMALL, Answer, files_of, learnt, peso
from faulty import Faults

from peso_cli.artifacts import find_artifacts

TINY = (
    *SMALL,
    "dataset.users=20",
    "dataset.items=30",
    "dataset.stages=2",
    "backbone.hidden=16",
    "backbone.feed_forward=16",
    "decoding.beams=10",
    "trainer.epochs=1",
    "trainer.later_epochs=1",
    "trainer.checkpoint_minutes=60",  # or a slow machine would write more often than a quick one
    "stage=2",
)
KINDS = (errno.ENOSPC, errno.EACCES, errno.EIO, errno.EMFILE, errno.EROFS)


def train(output: Path, *more: str) -> Answer:
    return peso("train", *TINY, f"output={output}", *more)


def stages(output: Path) -> dict[str, dict]:
    """What the stages that are there learnt, by folder."""
    return {str(a.folder.relative_to(output)): learnt(a.folder) for a in find_artifacts(output)}


def one_line(answer: Answer, *parts: str) -> str:
    """Check that a command failed with one line that holds all parts, and return it."""
    assert answer.code == 1, answer
    line = answer.err.splitlines()[-1]
    assert line.startswith("peso: ")
    assert "Traceback" not in answer.err
    assert sum(each.startswith("peso: ") for each in answer.err.splitlines()) == 1
    for part in parts:
        assert part in line, (part, line)
    return line


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that nothing disturbed, and the writing operations that it took."""
    output = tmp_path_factory.mktemp("undisturbed") / "outputs"
    with Faults(output) as faults:
        assert train(output).code == 0
    return output, faults.operations


def check_finished(output: Path, whole: dict[str, dict]) -> None:
    """Check that whatever is marked as finished is what an undisturbed run leaves, and passes its own check."""
    for artifact in find_artifacts(output):
        if artifact.finished:
            artifact.verify(artifact.lineage()["fingerprint"])
            assert learnt(artifact.folder) == whole[str(artifact.folder.relative_to(output))]


def disturb(output: Path, at: int, number: int, undisturbed) -> str:
    """Let one operation fail, check what is left and that the same command mends it; return the line of complaint."""
    whole = stages(undisturbed[0])
    with Faults(output, at, number) as faults:
        answer = train(output)
    operation = faults.operations[at]
    assert operation == undisturbed[1][at]
    check_finished(output, whole)
    # A folder that is there already, and what can't be cleared away, stop nothing.
    forgiven = operation.startswith(("mkdir", "unlink", "rmdir")) and answer.code == 0
    line = "" if forgiven else one_line(answer, str(output), os.strerror(number))
    again = train(output)
    assert again.code == 0, (operation, again)
    assert stages(output) == whole
    # A lock's file that couldn't be cleared away stays, held by nobody.
    left = [Path(name).name for name in files_of(output) if name.endswith((".part", ".lock"))]
    assert left in ([], [operation.removeprefix("unlink ")]), operation
    return line


def test_the_run_writes_in_all_the_ways_that_can_fail(undisturbed):
    done = {operation.split()[0] for operation in undisturbed[1]}
    assert done >= {"mkdir", "open", "write", "fsync", "replace", "unlink", "serialize_file", "write_table", "truncate"}


SAMPLE = 5


@pytest.mark.parametrize("share", range(SAMPLE))
def test_a_fault_at_a_writing_operation_is_one_line_and_the_same_command_goes_on(undisturbed, tmp_path, share):
    count = len(undisturbed[1])
    disturb(tmp_path / "outputs", (2 * share + 1) * count // (2 * SAMPLE), KINDS[share % len(KINDS)], undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("number", KINDS, ids=errno.errorcode.get)
def test_a_fault_at_every_writing_operation(undisturbed, tmp_path, number):
    for at in range(len(undisturbed[1])):
        disturb(tmp_path / "outputs", at, number, undisturbed)
        shutil.rmtree(tmp_path / "outputs")


# Real disks


@pytest.fixture
def disk(tmp_path):
    """Mount a small disk with options; it is taken away afterwards."""
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("needs the right to mount a disk")
        return place

    yield mounted
    subprocess.run(["umount", "-l", place], capture_output=True, check=False)


# In order: before the first stage's weights, in them, after them, in the second stage.
@pytest.mark.parametrize("share", [0.1, 0.45, 0.7, 0.9])
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_full_disk_is_one_line_and_with_room_the_same_command_goes_on(undisturbed, disk, share):
    needed = sum(len(data) for data in files_of(undisturbed[0]).values()) // 1024
    place = disk(f"size={int(needed * share)}k")
    line = one_line(train(place / "outputs"), str(place), "No space left on device")
    assert re.fullmatch(r"peso: \S+: No space left on device", line)
    check_finished(place / "outputs", stages(undisturbed[0]))
    subprocess.run(["mount", "-o", f"remount,size={10 * needed}k", place], check=True)
    assert train(place / "outputs").code == 0
    assert stages(place / "outputs") == stages(undisturbed[0])


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_read_only_disk_is_one_line_and_what_is_finished_there_is_still_used(undisturbed, disk):
    place = disk("size=20m")
    shutil.copytree(undisturbed[0], place / "outputs")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    assert train(place / "outputs").code == 0
    one_line(train(place / "outputs", "method=single"), str(place), "Read-only file system")
    one_line(train(place / "new"), str(place), "Read-only file system")


# Damage and its repair


@pytest.fixture
def damaged(undisturbed, tmp_path):
    """A copy of the undisturbed run that a test may damage."""
    return Path(shutil.copytree(undisturbed[0], tmp_path / "outputs"))


def folder_of(output: Path, stage: int) -> Path:
    (found,) = output.glob(f"synthetic/tiny/*/*/seed_1/stage_{stage}")
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


NAMES = (
    (1, "model/model.safetensors"),
    (2, "adapter/adapter_config.json"),
    (2, "predictions.parquet"),
    (2, "config.yaml"),
    (2, "lineage.json"),
    (2, "metrics.json"),
    (2, "log.jsonl"),
    (2, "DONE"),
)


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink], ids=["flipped", "cut", "missing"])
@pytest.mark.parametrize(("stage", "name"), NAMES)
def test_every_damage_of_a_finished_stage_is_named_with_its_mend(damaged, stage, name, harm):
    if (name, harm) == ("DONE", Path.unlink):
        return  # without its mark a stage isn't finished
    path = folder_of(damaged, stage) / name
    harm(path)
    before = files_of(damaged)
    one_line(train(damaged), str(path), "peso train --repair trains it anew")
    assert files_of(damaged) == before


@pytest.mark.parametrize(("stage", "name"), [(1, "model/model.safetensors"), (2, "metrics.json"), (2, "DONE")])
def test_repair_moves_what_is_damaged_and_what_was_made_from_it_aside(undisturbed, damaged, stage, name):
    lost = {s: folder_of(damaged, s) for s in range(stage, 3)}
    flip(lost[stage] / name)
    kept = {s: files_of(folder) for s, folder in lost.items()}
    answer = train(damaged, "--repair")
    assert answer.code == 0
    assert f"stage {stage}: {lost[stage] / name}: " in answer.err.splitlines()[0]
    for s, folder in lost.items():
        assert f"{folder}: moved aside to stage_{s}.damaged-1" in answer.err.splitlines()
        assert files_of(folder.with_name(f"stage_{s}.damaged-1")) == kept[s]
    assert stages(damaged) == stages(undisturbed[0])
    assert len(peso("runs", "--output", damaged, "--json").document) == 2


def test_repair_says_which_stages_of_other_methods_were_made_from_what_is_moved(damaged):
    assert train(damaged, "method=single").code == 0
    flip(next(damaged.rglob("model.safetensors")))
    single = next(damaged.glob("synthetic/tiny/single/*/seed_1/stage_2"))
    answer = train(damaged, "method=peso", "--repair")
    assert f"made from stage 1, too, and left as they are: {single}" in answer.err.splitlines()
    assert single.is_dir()


def test_repair_of_what_is_whole_changes_nothing(damaged):
    before = files_of(damaged)
    assert train(damaged, "--repair").code == 0
    assert files_of(damaged) == before


def test_a_mark_of_another_format_is_not_repaired_away(damaged):
    path = folder_of(damaged, 2) / "DONE"
    path.write_text(json.dumps({"format": 2, "files": {}}))
    before = files_of(damaged)
    for more in ((), ("--repair",)):
        answer = train(damaged, *more)
        assert answer.code == 2
        assert "is of format 2" in answer.err.splitlines()[-1]
    assert files_of(damaged) == before


# Damaged checkpoints


@pytest.fixture
def stopped(undisturbed, tmp_path):
    """A run whose second stage was stopped before it wrote what it learnt; its checkpoint is there."""
    output = tmp_path / "outputs"
    with Faults(output, "mkdir adapter", errno.EIO):
        assert train(output).code == 1
    folder = folder_of(output, 2)
    assert not (folder / "DONE").exists()
    assert (folder / "checkpoint.safetensors").is_file()
    return folder


def of_another_run(path: Path) -> None:
    other = path.parents[7] / "other"
    with Faults(other, "mkdir adapter", errno.EIO):
        assert train(other, "seed=2").code == 1
    shutil.copy(next(other.rglob("stage_2/checkpoint.safetensors")), path)


def without_log(path: Path) -> None:
    path.with_name("log.jsonl").write_bytes(b"{}\n")


HARMS = {
    "the checkpoint is damaged": (flip, cut, lambda path: path.write_bytes(b"")),
    "is the checkpoint of another run": (of_another_run,),
    "lacks lines that the stage's checkpoint counts on": (without_log,),
}


@pytest.mark.parametrize(("words", "harm"), [(words, harm) for words, harms in HARMS.items() for harm in harms])
def test_a_damaged_checkpoint_is_never_trained_over_but_moved_aside(undisturbed, stopped, words, harm):
    output = stopped.parents[5]
    harm(stopped / "checkpoint.safetensors")
    before = files_of(output)
    one_line(train(output), str(stopped), words, "--repair")
    assert files_of(output) == before
    answer = train(output, "--repair")
    assert answer.code == 0, answer
    assert f"{stopped}: moved aside to stage_2.damaged-1" in answer.err.splitlines()
    kept = {name: data for name, data in before.items() if "stage_2/" in name}
    assert set(kept.values()) == set(files_of(stopped.with_name("stage_2.damaged-1")).values())
    assert stages(output) == stages(undisturbed[0])
