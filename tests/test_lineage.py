"""Where a run's stages lie, what each was made from, and how they come into being one behind the other."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from commands.running import SMALL, files_of
from worlds import write_released

from peso_cli.artifacts import Artifact, provenance
from peso_cli.config.compose import compose
from peso_cli.config.fingerprint import base_settings, digest, later_settings
from peso_cli.errors import InputError, RunError
from peso_cli.files import write_json
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.methods.memories.current import Current
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.stages import Run, check_settings, ensure, open_run, unfinished
from peso_cli.training.checkpoints import Checkpoint, save_checkpoint

QUICK = (*SMALL, "dataset.users=20", "dataset.items=30", "trainer.epochs=1", "trainer.later_epochs=1")


@dataclass
class Lines:
    """A display that keeps what it was told."""

    said: list[str] = field(default_factory=list)
    bars: list[str] = field(default_factory=list)

    def say(self, text):
        self.said.append(text)

    def bar(self, title):
        self.bars.append(title)
        return lambda done, total, note: None


composed = cache(lambda *overrides: compose(overrides))


@pytest.fixture
def run_in(tmp_path, monkeypatch):
    """Open a run whose output lies in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: open_run(composed(*QUICK, *overrides))


@pytest.fixture
def run(run_in) -> Run:
    return run_in()


def begin(run: Run, stage: int, **changes) -> Artifact:
    """Begin a stage as training does, without training it."""
    artifact = run.artifact(stage)
    artifact.begin(run.composed.plain, {"fingerprint": run.fingerprint(stage), **changes})
    return artifact


def finish(run: Run, stage: int, **changes) -> Artifact:
    artifact = begin(run, stage, **changes)
    write_json(artifact.folder / "metrics.json", {"stage": stage})
    artifact.finish()
    return artifact


# Places and parts


def test_a_stage_lies_under_data_backbone_method_settings_and_seed(run):
    first, later = (digest(settings(run.config, run.contents))[:8] for settings in (base_settings, later_settings))
    assert run.artifact(1) == Artifact(Path("outputs/synthetic/tiny/base", first, "seed_1/stage_1"))
    assert run.artifact(2) == Artifact(Path("outputs/synthetic/tiny/peso", later, "seed_1/stage_2"))


def test_a_lineage_is_all_stages_up_to_one(run):
    assert run.lineage(3) == (run.artifact(1), run.artifact(2), run.artifact(3))
    assert run.lineage(0) == ()


def test_stage_1_has_the_same_parts_for_every_method_and_later_ones_those_of_theirs(run_in):
    run = run_in("method=retrain")
    assert run.parts(1) == (FullWeights(), NoRegularizer(), Current())
    assert run.parts(2) == run.parts(3) == (run.config.adapter, run.config.regularizer, run.config.memory)
    assert run.parts(2)[2].name == "all"


def test_a_pretrained_backbone_begins_with_an_adapter(run_in):
    pretrained = Run(composed("backbone=smollm2_135m"), run_in().dataset)
    assert pretrained.parts(1) == (Evolving(), NoRegularizer(), Current())


# Fingerprints


def test_a_fingerprint_is_the_digest_of_what_shapes_a_stage(run_in):
    """Finished stages are known by it: made up otherwise, none of them would be found again."""
    run = run_in("method=retrain", "seed=5")
    blocks = {str(stage): run.dataset.block(stage).digest for stage in (1, 2)}
    catalogs = [run.dataset.catalog_at(stage).digest for stage in (1, 2)]
    base, later = (digest(settings(run.config, run.contents)) for settings in (base_settings, later_settings))
    first = digest([1, base, 5, 1, catalogs[0], {"1": blocks["1"]}, None])
    assert run.fingerprint(1) == first
    assert run.fingerprint(2) == digest([1, later, 5, 2, catalogs[1], blocks, first])


def test_the_settings_of_a_stage_are_those_of_its_groups(run):
    config = run.config
    first, later = base_settings(config, {"model": "abc"}), later_settings(config, {"model": "abc"})
    assert set(first) == {"dataset", "backbone", "prompt", "trainer"}
    assert set(later) == {*first, "lora", "adapter", "regularizer", "memory"}
    assert first["dataset"] == later["dataset"]
    assert (first["dataset"]["users"], first["dataset"]["name"]) == (20, "synthetic")
    assert first["backbone"] == later["backbone"]
    assert (first["backbone"]["model"], first["backbone"]["hidden"]) == ("abc", 32)
    assert "lora" not in first["backbone"]
    assert set(later["trainer"]) - set(first["trainer"]) == {"later_stage_scale", "later_epochs"}
    assert "checkpoint_minutes" not in later["trainer"]
    assert first["prompt"]["window"] == config.prompt.window
    assert (later["adapter"]["name"], later["memory"]["name"]) == ("evolving", "current")
    assert later["regularizer"]["strength"] == config.regularizer.strength
    assert "code" not in later["regularizer"]


# Checks of finished stages


def test_a_finished_stage_is_verified_once(run):
    path = finish(run, 1).folder / "config.yaml"
    run.verify(1)
    path.write_text("")
    run.verify(1)
    with pytest.raises(RunError, match=r"config\.yaml: changed since"):
        Run(run.composed, run.dataset).verify(1)


def test_a_stage_of_other_settings_is_refused(run):
    finish(run, 1, fingerprint="other")
    with pytest.raises(InputError, match="stage_1: was made from other settings or other data"):
        run.verify(1)
    with pytest.raises(InputError, match="stage_1: was made from other settings or other data"):
        run.require(1)


def test_what_is_required_is_there_or_the_command_is_named_that_makes_it(run):
    for missing in (1, 2):
        with pytest.raises(InputError) as caught:
            run.require(2)
        words = " ".join(("stage=2", *QUICK))
        assert str(caught.value) == (
            f"stage {missing} of peso isn't trained with these settings "
            f"(looked in {run.artifact(missing).folder}); first run: peso train {words}"
        )
        finish(run, missing)
    assert run.require(2) == run.lineage(2)
    assert run.require(1) == run.lineage(1)


def test_all_of_a_required_lineage_is_verified(run):
    finish(run, 1)
    (finish(run, 2).folder / "config.yaml").write_text("")
    with pytest.raises(RunError, match=r"stage_2/config\.yaml: changed since"):
        run.require(2)


# Settings that mean something only together


def test_a_regularizer_needs_an_adapter_that_trains():
    with pytest.raises(InputError) as caught:
        open_run(composed("method=pretrain", "regularizer=l2"))
    assert str(caught.value) == (
        "regularizer=l2: adapter=frozen trains nothing that it could hold; give regularizer=none"
    )
    check_settings(composed("method=pretrain").config)
    check_settings(composed("method=peso").config)
    check_settings(composed("method=single").config)


def test_the_output_must_not_be_a_file(tmp_path):
    path = tmp_path / "runs"
    path.touch()
    with pytest.raises(InputError) as caught:
        open_run(compose([f"output={path}"]))
    assert str(caught.value) == f"output={path}: is a file; give a folder"


# Unfinished stages


def test_an_unfinished_stage_goes_on_from_its_own_checkpoint_alone(run):
    assert unfinished(run, 1) is None
    artifact = begin(run, 1)
    assert unfinished(run, 1) is None
    (artifact.folder / "log.jsonl").write_text("{}\n")
    save_checkpoint(artifact.checkpoint, Checkpoint({}, {"log_position": 3}))
    assert unfinished(run, 1).progress == {"log_position": 3}
    (artifact.folder / "log.jsonl").write_text("{}")
    with pytest.raises(RunError, match=r"log\.jsonl: lacks lines that the stage's checkpoint counts on"):
        unfinished(run, 1)
    begin(run, 1, fingerprint="other")
    with pytest.raises(InputError, match="was made from other settings or other data"):
        unfinished(run, 1)


def test_a_checkpoint_of_another_stage_is_refused(run):
    artifact = begin(run, 1, fingerprint="other")
    save_checkpoint(artifact.checkpoint, Checkpoint({}, {"log_position": 0}))
    begin(run, 1)
    with pytest.raises(RunError, match="is the checkpoint of another run"):
        unfinished(run, 1)


# Stages come into being


def test_stages_are_trained_in_order_and_reused(run):
    display = Lines()
    ensure(run, (2,), display)
    first, second = (run.artifact(stage).folder for stage in (1, 2))
    assert display.said[0] == f"stage 1: training {first} (stage 2 needs it)"
    assert f"stage 2: training {second}" in display.said[1:]
    assert display.bars[0] == "stage 1: training"
    assert "stage 2: training" in display.bars
    before = files_of(first)
    again = Lines()
    ensure(run, (1, 2), again)
    assert again.said == [f"stage 1: reusing {first}", f"stage 2: reusing {second}"]
    assert files_of(first) == before
    assert run.require(2) == run.lineage(2)


@pytest.mark.parametrize(
    ("method", "composition", "trained_on", "blocks"),
    [
        ("peso", ("evolving", "softmax_kl", "current"), [2], [2]),
        ("retrain", ("fresh", "none", "all"), [1, 2], [1, 2]),
        ("pretrain", ("frozen", "none", "current"), [], [2]),
    ],
)
def test_a_lineage_file_says_all_that_a_stage_was_made_from(run_in, method, composition, trained_on, blocks):
    run = run_in(f"method={method}")
    ensure(run, (2,), Lines())
    digests = {stage: run.dataset.block(stage).digest for stage in (1, 2)}

    def expected(stage, name, parts, trained, data):
        return {
            "format": 1,
            "dataset": "synthetic",
            "method": name,
            "seed": 1,
            "stage": stage,
            "fingerprint": run.fingerprint(stage),
            "parents": [
                {"path": str(run.artifact(s).folder), "fingerprint": run.fingerprint(s)} for s in range(1, stage)
            ],
            "composition": dict(zip(("adapter", "regularizer", "memory"), parts, strict=True)),
            "trained_on": trained,
            "data": {
                "catalog": run.dataset.catalog_at(stage).digest,
                **run.dataset.about,
                "blocks": {str(s): digests[s] for s in data},
            },
            "backbone": run.contents,
            **provenance(),
        }

    assert run.artifact(1).lineage() == expected(1, "base", ("full_weights", "none", "current"), [1], [1])
    assert run.artifact(2).lineage() == expected(2, method, composition, trained_on, blocks)


def test_what_has_begun_is_gone_on_with(run):
    artifact = begin(run, 1)
    display = Lines()
    ensure(run, (1,), display)
    assert display.said[0] == f"stage 1: training {artifact.folder}"
    assert artifact.finished


def test_a_mistake_that_shows_late_leaves_nothing_behind_but_what_had_begun(run_in):
    wrong = run_in("backbone.lora.targets=[absent]")
    for begun in (False, True):
        if begun:
            begin(wrong, 1)
        with pytest.raises(InputError, match="holds absent"):
            ensure(wrong, (2,), Lines())
        assert wrong.artifact(1).folder.exists() is begun


def test_all_data_is_looked_for_before_anything_is_trained(tmp_path):
    index = {f"i{n}": [f"<a_{n // 4}>", f"<b_{n % 4}>"] for n in range(12)}
    block = {"u": {"previous_block": [], "current_block": ["i0", "i1", "i2", "i3"]}}
    data = write_released(tmp_path / "data", index, {0: block, 2: block})
    settings = ["dataset=released", "dataset.name=toy", f"dataset.path={data}", f"output={tmp_path / 'runs'}"]
    run = open_run(compose(settings))
    with pytest.raises(InputError, match=r"block_1\.json"):
        ensure(run, (2,), Lines())
    assert not (tmp_path / "runs").exists()


def test_the_tracker_is_told_which_run_it_is(run, monkeypatch):
    from peso_cli.tracking import record

    seen, original = [], record.open_record

    def told(tracker, folder, **about):
        seen.append((tracker, folder, about))
        return original(tracker, folder, **about)

    monkeypatch.setattr(record, "open_record", told)
    ensure(run, (1, 2), Lines())
    for stage, (tracker, folder, about) in enumerate(seen, start=1):
        assert (tracker, folder) == (run.config.tracker, run.artifact(stage).folder)
        parts = folder.relative_to(run.config.output).parts
        assert about == {
            "group": "/".join(parts[1:5]),
            "name": f"peso stage {stage}",
            "settings": run.composed.plain,
            "keep_bytes": 0,
        }
    metrics = json.loads((run.artifact(2).folder / "metrics.json").read_text())
    assert metrics["seconds"]["train"] > 0
