import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from built_worlds import built
from commands.running import SMALL
from pretrained import save_pretrained
from worlds import write_released

from peso_cli.config.compose import compose
from peso_cli.config.fingerprint import base_settings, digest, later_settings
from peso_cli.files import sha256
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.stages import Run, open_run

BOTH = [
    "seed=2",
    "dataset.seed=3",
    "dataset.users=61",
    "dataset.trend=0.5",
    "backbone.hidden=64",
    "backbone.tie_embeddings=false",
    "prompt=instruct",
    "prompt.window=10",
    "trainer.epochs=3",
    "trainer.learning_rate=0.001",
    "trainer.accumulation=1",
    "trainer.batch_tokens=256",
    "trainer.packing=example",
    "trainer.patience=17",
    "trainer.validation_users=17",
]
LATER = [
    "method=single",
    "method=pretrain",
    "regularizer.strength=3",
    "regularizer.reduction=sum",
    "regularizer.smoothing=1e-8",
    "regularizer=l2",
    "adapter=full_weights",
    "memory=all",
    "trainer.later_stage_scale=0.5",
    "trainer.later_epochs=1",
    "backbone.lora.rank=8",
    "backbone.lora.targets=[q_proj]",
]
NEITHER = [
    "stage=3",
    "output=elsewhere",
    "variant=mine",
    "tracker=wandb",
    "tracker.project=other",
    "device=auto",
    "decoding=positional",
    "decoding.beams=20",
    "decoding.normalise=level",
    "decoding.batch_tokens=64",
    "evaluation.on=[1,2]",
    "evaluation.split=valid",
    "evaluation=next_stage",
    "evaluation=matrix",
    "trainer.checkpoint_minutes=0",
    "trainer.checkpoint_steps=1",
    "method.name=other",
]


def run_of(*overrides: str) -> Run:
    return open_run(compose([*SMALL, *overrides]))


@pytest.fixture(scope="module")
def plain() -> Run:
    return run_of()


def changed(plain: Run, *overrides: str) -> tuple[bool, bool]:
    """Whether stage 1 and stage 2 become others."""
    other = run_of(*overrides)
    return plain.fingerprint(1) != other.fingerprint(1), plain.fingerprint(2) != other.fingerprint(2)


@pytest.mark.parametrize("override", BOTH)
def test_what_shapes_stage_1_shapes_all(plain, override):
    assert changed(plain, override) == (True, True)


@pytest.mark.parametrize("override", LATER)
def test_what_a_method_does_leaves_stage_1_as_it_is(plain, override):
    assert changed(plain, override) == (False, True)
    assert run_of(override).artifact(1) == plain.artifact(1)
    assert run_of(override).artifact(2) != plain.artifact(2)


@pytest.mark.parametrize("override", NEITHER)
def test_what_shapes_no_weights_changes_nothing(plain, override):
    assert changed(plain, override) == (False, False)


def test_the_same_number_written_otherwise_is_the_same(plain):
    assert changed(run_of("regularizer.strength=3"), "regularizer.strength=3.0") == (False, False)
    assert changed(plain, "trainer.learning_rate=2e-3") == (False, False)


def test_every_stage_has_a_fingerprint_of_its_own(plain):
    assert len({plain.fingerprint(stage) for stage in (1, 2, 3)}) == 3


def test_equal_runs_have_equal_fingerprints_and_folders(plain):
    other = run_of()
    assert [plain.fingerprint(s) for s in (1, 2, 3)] == [other.fingerprint(s) for s in (1, 2, 3)]
    assert plain.lineage(3) == other.lineage(3)


def test_a_pretrained_backbone_takes_its_adapter_into_stage_1():
    pretrained = [*SMALL[:3], "backbone=smollm2_135m"]
    one, other = (compose([*pretrained, *more]).config for more in ([], ["backbone.lora.rank=4"]))
    assert base_settings(one, {}) != base_settings(other, {})
    assert later_settings(one, {})["lora"]["rank"] == 8


def test_a_digest_stands_in_for_the_name_of_files():
    config = compose([*SMALL[:3], "backbone=smollm2_135m"]).config
    moved = compose([*SMALL[:3], "backbone=smollm2_135m", "backbone.model=elsewhere"]).config
    for settings in (base_settings, later_settings):
        assert settings(config, {"model": "abc"}) == settings(moved, {"model": "abc"})
        assert settings(config, {"model": "abc"}) != settings(config, {"model": "abd"})
        assert settings(config, {}) != settings(moved, {})


def test_the_files_of_a_folder_shape_all_stages_and_its_place_none(tmp_path):
    here, there = save_pretrained(tmp_path / "here"), save_pretrained(tmp_path / "there")
    of = ("backbone=smollm2_135m", "backbone.model={}", "prompt=instruct")

    def fingerprints(folder):
        run = open_run(compose([*SMALL[:3], *(text.format(folder) for text in of)]))
        return run.fingerprint(1), run.fingerprint(2), run.artifact(1).folder, run.artifact(2).folder

    before = fingerprints(here)
    assert before == fingerprints(there)
    with (there / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, 2)
        handle.write(b"!")
    after = fingerprints(there)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_places_say_what_lies_there(plain):
    first, second = (plain.artifact(stage).folder for stage in (1, 2))
    assert first.parts[:4] == ("outputs", "synthetic", "tiny", "base")
    assert second.parts[:4] == ("outputs", "synthetic", "tiny", "peso")
    assert first.parts[5:] == ("seed_1", "stage_1")
    assert second.parts[5:] == ("seed_1", "stage_2")
    named = run_of("variant=mine")
    assert named.artifact(1) == plain.artifact(1)
    assert named.artifact(2).folder == Path("outputs/synthetic/tiny/peso/mine/seed_1/stage_2")


INDEX = {f"i{n}": [f"<a_{n // 4}>", f"<b_{n % 4}>"] for n in range(12)}
BLOCKS = {
    0: {"u": {"previous_block": [], "current_block": ["i0", "i1", "i2", "i3"]}},
    1: {"u": {"previous_block": ["i0", "i1", "i2", "i3"], "current_block": ["i4", "i5", "i6"]}},
}
CHANGED = {
    0: {"u": {"previous_block": [], "current_block": ["i0", "i1", "i2", "i9"]}},
    1: {"u": {"previous_block": ["i0", "i1", "i2", "i3"], "current_block": ["i4", "i5", "i9"]}},
}


def released(folder: Path, *overrides: str, index=INDEX, texts=None, **blocks) -> tuple[str, str]:
    blocks = {**BLOCKS, **{int(number[1:]): value for number, value in blocks.items()}}
    write_released(folder, index, blocks, texts)
    run = run_of_released(folder, *overrides)
    return run.fingerprint(1), run.fingerprint(2)


def run_of_released(folder: Path, *overrides: str) -> Run:
    settings = ["dataset=released", "dataset.name=toy", f"dataset.path={folder}"]
    return open_run(compose([*settings, *overrides]))


def test_where_files_lie_and_what_items_are_called_changes_nothing(tmp_path):
    here = released(tmp_path / "a")
    there = released(tmp_path / "b", texts={"i0": {"title": "A title"}})
    assert here == there


def test_a_sample_shapes_what_is_trained_on_it(tmp_path):
    whole = released(tmp_path / "a")
    assert released(tmp_path / "a", "dataset.sample_seed=2") == whole
    sample = released(tmp_path / "a", "dataset.sample_users=1")
    others = (whole, released(tmp_path / "a", "dataset.sample_users=1", "dataset.sample_seed=2"))
    assert all(one != other for them in others for one, other in zip(sample, them, strict=True))


def test_a_changed_block_changes_its_own_stage_and_those_behind_it(tmp_path):
    first, second = released(tmp_path / "a")
    changed_first, changed_second = released(tmp_path / "b", _0=CHANGED[0])
    assert first != changed_first
    assert second != changed_second  # its own block is the same, the stage it goes on from is not
    same_first, other_second = released(tmp_path / "c", _1=CHANGED[1])
    assert first == same_first
    assert second != other_second


def test_other_semantic_ids_change_everything(tmp_path):
    here = released(tmp_path / "a")
    there = released(tmp_path / "b", index={**INDEX, "i11": ["<a_0>", "<b_0>"]})
    assert all(one != other for one, other in zip(here, there, strict=True))


def test_a_digest_knows_content_and_not_order():
    assert digest({"a": 1, "b": [1.5, None]}) == digest(json.loads('{"b": [1.5, null], "a": 1}'))
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])
    assert len(digest({})) == 64


@dataclass(frozen=True)
class OwnAdapter(Evolving):
    """What somebody might write."""


def test_the_code_of_a_part_of_ones_own_belongs_to_its_settings(plain):
    config = replace(plain.config, adapter=OwnAdapter())
    ours, own = (later_settings(one, {})["adapter"] for one in (plain.config, config))
    assert own == {**ours, "code": sha256(Path(__file__))}


@pytest.mark.parametrize("source", ["released", "built"])
def test_of_data_in_files_only_what_chooses_among_it_belongs_to_the_settings(source):
    config = compose(["dataset=released", "dataset.name=toy", "dataset.path=somewhere"]).config
    of_ids = built(Path("somewhere"), semantic_ids="rq_vae", catalog="all")
    whole = config.dataset if source == "released" else of_ids

    def of(**changes):
        return base_settings(replace(config, dataset=replace(whole, **changes)), {})["dataset"]

    assert of() == of(path="elsewhere", sample_seed=3) == {"source": source, "name": "toy"}
    assert of(catalog="visible") == {"source": source, "name": "toy", "catalog": "visible"}
    assert of(sample_users=5) == {"source": source, "name": "toy", "sample_users": 5, "sample_seed": 1}


TWO_TOWER = ["backbone=lightgcn", "method=two_tower_finetune"]


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("backbone.layers=2", (True, True)),
        ("backbone.seen=kept", (True, True)),
        ("backbone=bpr", (True, True)),
        ("backbone.cold_start=random", (False, True)),
        ("method=two_tower_pisa", (False, True)),
        ("memory=replay", (False, True)),
        ("decoding.top_k=5", (False, False)),
    ],
)
def test_what_shapes_the_stages_of_a_two_tower_model(override, stages):
    one, other = (compose([*SMALL[:3], *TWO_TOWER, *more]).config for more in ([], [override]))
    differ = (base_settings(one, {}) != base_settings(other, {}), later_settings(one, {}) != later_settings(other, {}))
    assert differ == stages
