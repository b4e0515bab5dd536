"""Many stages in one process: what a stage takes and leaves does not grow with the number of those before it."""

from __future__ import annotations

import gc
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from artifact_makers import made
from commands.running import SMALL, peso
from watched import Watch

from peso_cli.config.compose import compose
from peso_cli.reports.look import COLOURS, style
from peso_cli.stages import ensure, open_run

WORDS = (
    *SMALL,
    "backbone.hidden=16",
    "backbone.feed_forward=16",
    "decoding.beams=10",
    "trainer.epochs=1",
    "trainer.later_epochs=1",
)
WARM = 4
"""The stage from which on all must be flat: by then every path has been taken."""

MEGABYTES = 2**20


@dataclass(frozen=True)
class Held:
    """What the process holds as a stage begins."""

    files: int
    threads: int
    resident: int
    tensors: int
    tensor_bytes: int
    objects: int


def held() -> Held:
    """Count what is left once all rubbish is gone."""
    gc.collect()
    objects = gc.get_objects()
    tensors = [each for each in objects if issubclass(type(each), torch.Tensor)]
    stored = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    counts = [len(os.listdir(f"/proc/self/{what}")) for what in ("fd", "task")]
    return Held(*counts, psutil.Process().memory_info().rss, len(tensors), stored, len(objects))


class Stages:
    """A display that, as each stage begins, takes stock and looks which files of earlier stages the last one opened.

    Attributes:
        held: by stage.
        read: by stage, how often it opened files of `first`, of the stage just before (`previous`) or of `older` ones.
    """

    def __init__(self) -> None:
        self.held: dict[int, Held] = {}
        self.read: dict[int, Counter[tuple[str, str]]] = {}
        self._watch, self._folders = Watch(), {}

    def say(self, text: str) -> None:
        """Take stock at the line that a stage begins with."""
        if found := re.match(r"stage (\d+): training (\S+)", text):
            self.begin(int(found[1]), Path(found[2]))

    def bar(self, title: str):
        """Show nothing."""
        return lambda done, total, note: None

    def begin(self, stage: int, folder: Path) -> None:
        """Take stock of the stage before, and watch its files from now on."""
        self._settle(stage - 1)
        if stage > 1:
            self._watch.add([self._folders[stage - 1]])
        self._folders[stage] = folder
        self.held[stage] = held()
        self._watch.take()

    def end(self, last: int) -> None:
        """Take stock of the last stage."""
        self._settle(last)
        self.held[last + 1] = held()
        self._watch.close()

    def _settle(self, stage: int) -> None:
        numbers = {folder: number for number, folder in self._folders.items()}
        found: Counter[tuple[str, str]] = Counter()
        for path, times in self._watch.take().items():
            of = next(numbers[above] for above in path.parents if above in numbers)
            place = "first" if of == 1 else "previous" if of == stage - 1 else "older"
            found[place, str(path.relative_to(self._folders[of]))] += times
        self.read[stage] = found


def trained(output: Path, stages: int, *words: str) -> Stages:
    """Train all stages of a world in this process."""
    run, seen = open_run(compose([*WORDS, f"dataset.stages={stages}", f"output={output}", *words])), Stages()
    ensure(run, range(1, stages + 1), seen)
    seen.end(stages)
    return seen


def check_flat(seen: Stages, stages: int, megabytes: int) -> None:
    """Check that nothing that is held or read grows from stage WARM on."""
    late = [seen.held[stage] for stage in range(WARM, stages + 2)]
    for what in ("files", "threads", "tensors", "tensor_bytes"):
        counts = [getattr(each, what) for each in late]
        assert max(counts) == counts[0], (what, counts)
    # The artifacts' own names and checks: a few objects a stage, where a stage's model alone has thousands.
    assert late[-1].objects - late[0].objects < 100 * len(late), [each.objects for each in late]
    assert late[-1].resident - late[0].resident < megabytes * MEGABYTES, [each.resident for each in late]
    for stage in range(WARM, stages + 1):
        assert seen.read[stage] == seen.read[WARM], stage


def test_eight_stages_hold_and_read_no_more_than_four(tmp_path):
    seen = trained(tmp_path, 8, "dataset.users=60", "method=peso")
    check_flat(seen, 8, megabytes=24)
    assert {place for place, _ in seen.read[8]} == {"first", "previous"}
    assert seen.read[8]["previous", "adapter/adapter_model.safetensors"] <= 3


@pytest.mark.long
def test_fifty_stages_hold_and_read_no_more_than_four(tmp_path):
    seen = trained(tmp_path, 50, "dataset.users=200", "method=peso")
    check_flat(seen, 50, megabytes=48)
    assert {place for place, _ in seen.read[50]} == {"first", "previous"}
    for command in (("tables", "main"), ("report", "--to", tmp_path / "page.html"), ("runs",)):
        assert peso(*command, "--output", tmp_path).code == 0


LATEST = ("single", "l2", "output_kl", "ewc", "replay", "sumlora_latest", "full")


@pytest.mark.parametrize("method", [LATEST[0], *(pytest.param(m, marks=pytest.mark.long) for m in LATEST[1:])])
def test_a_method_that_looks_back_one_stage_reads_no_older_one(tmp_path, method):
    seen = trained(tmp_path, 6, "dataset.users=60", f"method={method}")
    assert {place for place, _ in seen.read[6]} <= {"first", "previous"}
    assert seen.read[6] == seen.read[5] == seen.read[4]


def test_a_method_that_sums_up_all_stages_is_seen_to_read_them(tmp_path):
    seen = trained(tmp_path, 4, "dataset.users=60", "method=sumlora_all")
    assert ("older", "adapter/adapter_model.safetensors") in seen.read[4]


# What is shown of however many stages and methods there are

METHODS = ("peso", "single", "l2", "orthogonal", "output_kl", "rank_kl", "replay", "retrain", "ewc", "full")
TABLES = ("main", "groups", "forgetting", "efficiency", "regularizers")


@pytest.fixture(scope="module", params=[(2, METHODS), (50, METHODS[:2])], ids=["two", "fifty"])
def runs(tmp_path_factory, request) -> tuple[Path, int, tuple[str, ...]]:
    """Finished stages, many or few, of few or many methods."""
    stages, methods = request.param
    output = tmp_path_factory.mktemp(f"of{stages}")
    made(output, "base", 1)
    for place, method in enumerate(methods):
        for stage in range(2, stages + 1):
            words = (f"dataset.stages={stages}",)
            folder = made(output, method, stage, 0.1 + place / 100 + stage / 1000, words=words)
            (folder / "log.jsonl").write_text('{"event": "train", "step": 1, "loss": 2.0, "learning_rate": 0.1}\n')
    return output, stages, methods


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_room_for_any_number_of_stages(runs, name):
    output, stages, methods = runs
    answer = peso("tables", name, "--output", output, "--format", "csv")
    assert answer.code == 0, answer
    if name == "forgetting":
        assert f"after stage {stages}" in answer.out
    if name == "main":
        assert all(f",{method}," in answer.out for method in methods)


@pytest.mark.parametrize("name", ["stages", "forgetting", "groups", "efficiency", "training"])
def test_pictures_have_room_for_any_number_of_stages(runs, tmp_path, name):
    output, _, _ = runs
    answer = peso("plot", name, "--output", output, "--to", tmp_path, "--format", "svg")
    assert answer.code == 0, answer
    (picture,) = tmp_path.glob("*.svg")
    found = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', picture.read_text())
    assert found is not None
    # Beyond that a PNG of it would fill the memory.
    assert float(found[1]) * float(found[2]) / 72**2 < 2500


def test_more_methods_than_colours_are_told_apart():
    looks = [tuple(sorted(style(place).items())) for place in range(36)]
    assert len(set(looks)) == 36 > len(COLOURS)


def test_a_page_has_room_for_any_number_of_stages(runs, tmp_path):
    output, stages, _ = runs
    answer = peso("report", "--output", output, "--to", tmp_path / "page.html")
    assert answer.code == 0, answer
    assert f"stage {stages}" in (tmp_path / "page.html").read_text()
