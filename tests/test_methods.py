"""Every method of language models that comes with the package, over three stages of a small world."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from commands.running import SMALL, Trained, left, peso
from test_stages import in_training, interrupt

from peso_cli.artifacts import Artifact
from peso_cli.config.compose import compose, conf_folder
from peso_cli.decoding.beam import BeamSearch
from peso_cli.training import loop, stage

METHODS = sorted(
    path.stem
    for path in (conf_folder() / "method").glob("*.yaml")
    if not path.stem.startswith("two_tower_") and path.stem != "hybrid"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """An output folder with stage 1, which all methods begin from."""
    output = tmp_path_factory.mktemp("base")
    answer = peso("train", "stage=1", f"output={output}", *SMALL)
    assert answer.code == 0, answer.err
    return output


def checksums(model):
    """Each frozen tensor's sum and sum of squares; equal bits give equal sums."""
    with torch.no_grad():
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers(remove_duplicate=False))}
        frozen = {name: t for name, t in tensors.items() if not t.requires_grad}
        return {name: (float(t.double().sum()), float(t.double().square().sum())) for name, t in frozen.items()}


@dataclass(frozen=True)
class Finished:
    """A method's finished stages 1 to 3, and what was seen while they came into being."""

    method: str
    output: Trained
    frozen_alike: list[bool]

    @property
    def part(self):
        return compose([f"method={self.method}"]).config


@pytest.fixture(scope="module", params=METHODS)
def finished(request, base, tmp_path_factory) -> Finished:
    """Each method in its turn; only to be read."""
    place = tmp_path_factory.mktemp("method")
    output, seen = Trained(Path(shutil.copytree(base, place / "outputs"))), []

    def watched(job):
        before = checksums(job.model)
        progress = loop.train(job)
        seen.append(checksums(job.model) == before)
        return progress

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(stage, "train", watched)
        answer = peso(*command(request.param))
    assert answer.code == 0, answer.err
    return Finished(request.param, output, seen)


def command(method):
    """What trains a method in the working directory, with a checkpoint at every step."""
    return ("train", "stage=3", f"method={method}", *SMALL, "trainer.checkpoint_steps=1")


def curves(folder, name):
    """The values of one name in a stage's log, in order."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def test_a_method_trains_is_scored_and_leaves_what_is_frozen_alone(finished):
    trains = finished.part.adapter.trains
    assert finished.frozen_alike == 2 * trains * [True]
    for number in (2, 3):
        folder = finished.output.folder(finished.method, number)
        found = json.loads((folder / "metrics.json").read_text())["evaluated"][str(number)]["test"]
        assert found["users"] > 0
        assert all(0 <= found[f"{figure}@10"] <= 1 for figure in ("recall", "ndcg"))
        losses = curves(folder, "loss")
        assert bool(losses) == trains
        assert all(math.isfinite(loss) for loss in losses)


def test_a_regularizer_pulls_and_its_pull_is_logged_at_every_step(finished):
    folder = finished.output.folder(finished.method, 3)
    ratios = curves(folder, "penalty_gradient_ratio")
    if finished.part.regularizer.name == "none":
        assert not ratios
        return
    assert len(ratios) == len(curves(folder, "loss"))
    assert all(math.isfinite(ratio) for ratio in ratios)
    assert max(ratios) > 0


MOMENTS = {
    "in an epoch": lambda patch: interrupt(patch, loop, "label_loss", 4, when=in_training),
    "in the evaluation": lambda patch: interrupt(patch, BeamSearch, "run", 1),
    "between stages": lambda patch: interrupt(patch, Artifact, "begin", 2),
}


@pytest.mark.parametrize("moment", ["in an epoch", *(pytest.param(m, marks=pytest.mark.long) for m in [*MOMENTS][1:])])
def test_a_method_that_was_interrupted_ends_as_if_it_had_not_been(finished, tmp_path, monkeypatch, moment):
    if moment == "in an epoch" and not finished.part.adapter.trains:
        pytest.skip("trains nothing that could be interrupted")
    output = Trained(Path(shutil.copytree(finished.output.output, tmp_path / "outputs")))
    for number in (2, 3) if moment == "between stages" else (3,):
        shutil.rmtree(output.folder(finished.method, number))
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        MOMENTS[moment](patch)
        assert peso(*command(finished.method)).code == 130
    again = peso(*command(finished.method))
    assert again.code == 0, again.err
    assert ("resuming" in again.err) == (moment != "between stages" and finished.part.adapter.trains)
    assert left(output.output) == left(finished.output.output)
