"""InfLoRA over stages of a small world: its A's, its memory of past inputs, and what it computes."""

import itertools
from dataclasses import replace

import pytest
import torch
from commands.running import SMALL, WORLD
from pretrained import begun, built, config_of, logits_of, save_pretrained, some_batch, train_a_little
from pydantic import ValidationError

from peso_cli.artifacts import Artifact
from peso_cli.backbones.build import build_backbone
from peso_cli.backbones.loading import load_for_inference, lora_arguments
from peso_cli.config.compose import compose
from peso_cli.data.open import open_dataset
from peso_cli.errors import InputError
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.inf_lora import InfLoRA
from peso_cli.methods.lora import lora_factors, own_factors
from peso_cli.methods.moments import second_moments
from peso_cli.methods.parts import AdapterStart
from peso_cli.methods.subspaces import of_state
from peso_cli.training.checkpoints import trainable
from peso_cli.training.stage import StageData
from peso_cli.training.steps import label_loss

THRESHOLD = 0.9
ALL, LATEST = InfLoRA("all", False, THRESHOLD), InfLoRA("latest", False, THRESHOLD)
INHERITING = InfLoRA("all", True, THRESHOLD), InfLoRA("latest", True, THRESHOLD)
EVERY = pytest.mark.parametrize("adapter", [ALL, LATEST, *INHERITING], ids=lambda a: f"{a.past}-{a.inherit}")
SCALE = 2.0
MODEL = ["method=inflora_all", *SMALL[len(WORLD) :], "backbone.lora.rank=4", "backbone.lora.alpha=8"]


class World:
    """Stages of packed examples of made-up or real users, and a small backbone that counts as trained in stage 1."""

    def __init__(self, *overrides):
        self.config = compose([*MODEL, *overrides]).config
        self.dataset = open_dataset(self.config.dataset)

    def start(self, stage, past=()):
        """What a stage begins from."""
        config = self.config
        backbone = build_backbone(config.backbone, config.prompt, self.dataset.catalog, 1)
        data = StageData(self.dataset, config, backbone.prompt)
        lora = lora_arguments(config.backbone, backbone.model, backbone.vocabulary)
        torch.manual_seed(stage)
        return AdapterStart(backbone.model, lora, past, stage, data)

    def train(self, adapter, folder, stage, past=()):
        """Train a stage for a few steps, leave it in a folder, and return its artifact."""
        start = self.start(stage, past)
        model = adapter.begin(start).train()
        optimiser = torch.optim.AdamW(trainable(model).values(), lr=0.02)
        for batch in [*start.data.batches(stage)] * 2:
            label_loss(model, batch, 1.0).backward()
            optimiser.step()
            optimiser.zero_grad()
        artifact = Artifact(folder / f"stage_{stage}")
        adapter.save(model, artifact.folder)
        artifact.write_state(adapter=adapter.state(model))
        return artifact

    def lineage(self, adapter, folder, last):
        """Train stages 2 to `last`, one upon the other."""
        past = ()
        for stage in range(2, last + 1):
            past = (*past, self.train(adapter, folder, stage, past))
        return past


@pytest.fixture(scope="module")
def world():
    return World(*WORLD, "dataset.stages=4", "trainer.batch_tokens=256")


@pytest.fixture(scope="module")
def lineage(world, tmp_path_factory):
    """Stages 2 and 3 of an adapter, trained once."""
    done = {}

    def make(adapter):
        if adapter not in done:
            done[adapter] = world.lineage(adapter, tmp_path_factory.mktemp("stages"), 3)
        return done[adapter]

    return make


@pytest.fixture(scope="module")
def begin(world, lineage):
    """Begin a stage upon an adapter's own; the model is only to be read."""
    done = {}

    def make(adapter, stage, own=None):
        key = adapter, stage, own or adapter
        if key not in done:
            done[key] = adapter.begin(world.start(stage, lineage(own or adapter)[: stage - 2]))
        return done[key]

    return make


def memory_of(model_or_artifact, adapter):
    """The splits that a begun model or a finished stage keeps."""
    if isinstance(model_or_artifact, Artifact):
        return of_state(model_or_artifact.read_state("adapter"))
    return of_state(adapter.state(model_or_artifact))


def product(pairs):
    """The sum of B A over pairs, by module."""
    return {name: sum((of[name][1] @ of[name][0]).double() for of in pairs) for name in pairs[0]}


@torch.no_grad()
def effective(model):
    """What a model's adapter adds to each weight, the scaling left out."""
    found = {}
    for name in lora_factors(model):
        module = model.get_submodule(name)
        found[name] = (module.lora_B["default"].weight @ module.lora_A["default"].weight).double()
        assert module.scaling["default"] == SCALE
    return found


def close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name in found:
        assert float((found[name] - expected[name]).detach().abs().max()) < tolerance, name


@EVERY
def test_just_b_trains(world, lineage, adapter):
    for past in ((), lineage(adapter)):
        model = adapter.begin(world.start(2 + len(past), past))
        factors = lora_factors(model)
        assert {id(p) for p in trainable(model).values()} == {id(b) for _, b in factors.values()}
        before = {name: a.detach().clone() for name, (a, _) in factors.items()}
        train = torch.optim.SGD(trainable(model).values(), lr=1.0)
        label_loss(model, next(iter(world.start(2).data.batches(2))), 1.0).backward()
        train.step()
        assert all(torch.equal(a, before[name]) for name, (a, _) in factors.items())
        assert all(b.grad.any() for _, b in factors.values())


@EVERY
def test_an_a_reads_nothing_of_the_past_inputs_that_are_kept(begin, adapter):
    for stage in (2, 3, 4):
        model = begin(adapter, stage)
        kept = memory_of(model, adapter)
        for name, (a, _) in lora_factors(model).items():
            inside = kept[name].inside
            assert inside.shape[1] > 0
            assert float((a.detach().double() @ inside).abs().max()) < 1e-6
            assert a.square().mean() > 0.2 / (3 * a.shape[1])  # some directions are left


@EVERY
def test_the_memory_grows_from_stage_to_stage(begin, lineage, adapter):
    memories = [memory_of(artifact, adapter) for artifact in lineage(adapter)]
    memories.append(memory_of(begin(adapter, 4), adapter))
    for earlier, later in itertools.pairwise(memories):
        for name, split in earlier.items():
            left_out = later[name].outside.mT @ split.inside
            assert not left_out.numel() or float(left_out.abs().max()) < 1e-5


@pytest.mark.parametrize("adapter", [ALL, LATEST], ids=["all", "latest"])
def test_inputs_of_the_stage_before_barely_reach_an_a_but_do_reach_a_fresh_one(world, begin, adapter):
    data, shares, fresh_shares = world.start(2).data, [], []
    for stage in (2, 3):
        model = begin(replace(adapter, threshold=0.99), stage, own=adapter)
        factors = lora_factors(model)
        fresh = {
            name: torch.nn.Linear(a.shape[1], len(a), bias=False).weight.detach() for name, (a, _) in factors.items()
        }
        for name, moment in second_moments(model, factors, data.batches(stage - 1)).items():
            total = float(moment.trace()) / 3  # what rows of length 1/sqrt(3) in all directions would read
            for a, found in ((factors[name][0].detach(), shares), (fresh[name], fresh_shares)):
                found.append(float((a.double() @ moment @ a.double().mT).trace()) / total)
    assert max(shares) <= 0.01 + 1e-6
    assert min(fresh_shares) > 0.02


@EVERY
def test_the_pairs_are_added_as_they_are(world, lineage, adapter):
    past = lineage(adapter)
    model = adapter.begin(world.start(4, past))
    live = lora_factors(model)
    with torch.no_grad():
        for _, b in live.values():
            b.normal_()
    taken = past if adapter.past == "all" else past[-1:]
    close(effective(model), product([*(own_factors(artifact) for artifact in taken), live]))


@pytest.mark.parametrize("adapter", [ALL, LATEST], ids=["all", "latest"])
def test_a_stage_begins_with_just_the_past_pairs(world, begin, lineage, adapter):
    past = lineage(adapter)
    taken = past if adapter.past == "all" else past[-1:]
    model = begin(adapter, 4)
    assert not any(b.any() for _, b in lora_factors(model).values())
    close(effective(model), product([own_factors(artifact) for artifact in taken]))
    if adapter is ALL:
        before = load_for_inference(world.start(4).model, past)
        assert torch.allclose(logits_of(model), logits_of(before), atol=1e-4)


@pytest.mark.parametrize("adapter", INHERITING, ids=["all", "latest"])
def test_b_is_inherited_and_a_is_not(begin, lineage, adapter):
    past = lineage(adapter)
    model, plain = begin(adapter, 4), begin(replace(adapter, inherit=False), 4, own=adapter)
    for (name, (a, b)), (designed, _) in zip(lora_factors(model).items(), lora_factors(plain).values(), strict=True):
        assert torch.equal(b, own_factors(past[-1])[name][1])
        assert b.any()
        assert torch.equal(a, designed)
    first = begin(adapter, 2)
    assert not any(b.any() for _, b in lora_factors(first).values())


def test_which_pairs_go_on_makes_no_difference_to_the_inputs_that_an_a_is_designed_for(begin):
    """Stages 2 and 3 are the same whether `all` or the `latest` pair is summed; so then is what stage 4 looks at."""
    one, other = (begin(adapter, 4, own=ALL) for adapter in (ALL, LATEST))
    for (a, _), (same, _) in zip(lora_factors(one).values(), lora_factors(other).values(), strict=True):
        torch.testing.assert_close(a.mT @ a, same.mT @ same, rtol=0, atol=2e-3)
    for split, same in zip(memory_of(one, ALL).values(), memory_of(other, LATEST).values(), strict=True):
        assert split.inside.shape == same.inside.shape
        torch.testing.assert_close(split.inside @ split.inside.mT, same.inside @ same.inside.mT, rtol=0, atol=1e-3)


@EVERY
def test_a_stage_that_begins_twice_begins_the_same(world, lineage, adapter):
    past = lineage(adapter)
    one, other = (adapter.begin(world.start(4, past)) for _ in range(2))
    mine, its = ({**m.state_dict(), **adapter.state(m)} for m in (one, other))
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in mine)


@EVERY
def test_what_is_written_is_what_was_trained(world, lineage, adapter, tmp_path):
    past = lineage(adapter)
    model = adapter.begin(world.start(4, past))
    with torch.no_grad():
        for _, b in lora_factors(model).values():
            b.normal_(std=0.1)
    artifact = Artifact(tmp_path / "stage_4")
    adapter.save(model, artifact.folder)
    artifact.write_state(adapter=adapter.state(model))
    loaded = load_for_inference(world.start(4).model, (*past, artifact))
    assert torch.allclose(logits_of(model), logits_of(loaded), atol=1e-3)
    for name, pair in lora_factors(model).items():
        assert all(torch.equal(x, y) for x, y in zip(pair, own_factors(artifact)[name], strict=True))


def test_the_first_stage_upon_a_whole_backbone_remembers_the_inputs_of_stage_1(world, begin, lineage):
    past = lineage(ALL)
    state = past[0].read_state("adapter")
    assert {key.rpartition(".")[2] for key in state} <= {"subspace", "complement"}
    model = begin(ALL, 2)
    for name, moment in second_moments(model, lora_factors(model), world.start(2).data.batches(1)).items():
        inside = memory_of(past[0], ALL)[name].inside
        assert float((inside.mT @ moment @ inside).trace() / moment.trace()) > THRESHOLD - 1e-5


def test_without_any_stage_before_nothing_is_avoided(world):
    start = world.start(1)
    model = ALL.begin(start)
    assert all(not split.inside.shape[1] for split in memory_of(model, ALL).values())
    moments = second_moments(model, lora_factors(model), start.data.batches(1))
    for name, (a, _) in lora_factors(model).items():
        read = float((a.detach().double() @ moments[name] @ a.detach().double().mT).trace())
        assert 3 * read == pytest.approx(float(torch.linalg.eigvalsh(moments[name])[-len(a) :].sum()), rel=1e-5)


def test_no_threshold_avoids_nothing_and_a_whole_one_leaves_no_room(world):
    nothing, everything = (InfLoRA("all", False, t).begin(world.start(2)) for t in (0.0, 1.0))
    assert all(not split.inside.shape[1] for split in memory_of(nothing, ALL).values())
    for a, _ in lora_factors(everything).values():
        assert a.isfinite().all()
    (head,) = (a for name, (a, _) in lora_factors(everything).items() if name.endswith("lm_head"))
    assert not head.any()


# A pretrained backbone, whose stage 1 is a LoRA and whose code rows train


class SameData:
    """Random rows as every stage's data."""

    def __init__(self, size):
        self.size = size

    def batches(self, stage):
        return iter([some_batch(self.size, stage)])


@pytest.mark.parametrize("tied", [True, False])
def test_upon_a_lora_of_stage_1_factors_and_rows_go_on(tmp_path, tied):
    config = config_of(save_pretrained(tmp_path / "base", tied=tied))
    first = train_a_little(begun(Evolving(), config))
    artifact = Artifact(tmp_path / "stage_1")
    Evolving().save(first, artifact.folder)
    backbone = built(config)
    lora = lora_arguments(config, backbone.model, backbone.vocabulary)
    start = AdapterStart(backbone.model, lora, (artifact,), 2, SameData(backbone.vocabulary.size))
    model = ALL.begin(start)
    assert torch.allclose(logits_of(model), logits_of(first), atol=1e-4)
    train_a_little(model)
    ALL.save(model, tmp_path / "stage_2")
    second = Artifact(tmp_path / "stage_2")
    second.write_state(adapter=ALL.state(model))
    assert own_factors(second).keys() == own_factors(artifact).keys()
    merged = load_for_inference(built(config).model, (artifact, second))
    assert torch.allclose(logits_of(merged), logits_of(model), atol=1e-4)


def test_a_lora_in_the_embedding_is_refused():
    world = World(*WORLD, "backbone.lora.targets=[embed_tokens,q_proj]", "backbone.tie_embeddings=false")
    with pytest.raises(InputError, match=r"targets holds the embedding \(embed_tokens\)"):
        ALL.begin(world.start(2))


# Real users


def test_on_real_users_past_inputs_barely_reach_what_is_learnt_next(shared):
    folder = shared / "data" / "amazon_games"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder}")
    config = ["dataset=amazon_games", f"dataset.path={folder}", "dataset.sample_users=40", "trainer.batch_tokens=1024"]
    start = World(*config).start(3)
    model = ALL.begin(start)
    moments = second_moments(model, lora_factors(model), start.data.batches(2))
    for name, (a, _) in lora_factors(model).items():
        exact, moment = a.detach().double(), moments[name]
        assert 3 * float((exact @ moment @ exact.mT).trace()) <= (1 - THRESHOLD + 1e-6) * float(moment.trace())


@pytest.mark.parametrize("past", ["all", "latest"])
@pytest.mark.parametrize("inherit", [True, False])
def test_each_method_chooses_its_adapter(past, inherit):
    name = f"inflora_{past}{'_inherit' if inherit else ''}"
    config = compose([f"method={name}"]).config
    assert config.adapter == InfLoRA(past, inherit, 0.95)
    assert (config.method.name, config.regularizer.name, config.memory.name) == (name, "none", "current")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.9", None])
def test_a_threshold_is_a_share(threshold):
    with pytest.raises(ValidationError):
        InfLoRA("all", False, threshold)
