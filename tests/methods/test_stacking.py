"""Stages of stacked adapters on small language models: what trains, what stays, what is written and read."""

import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from commands.running import SMALL, peso
from peft import PeftModel
from peft.utils.warning import PeftWarning
from pretrained import LORA, built, config_of, end_weights, logits_of, save_pretrained, some_batch
from pretrained import train_a_little as train
from safetensors.torch import load_file
from torch.nn import functional

from peso_cli.artifacts import Artifact
from peso_cli.backbones.head import head_of, summed_cross_entropy
from peso_cli.backbones.loading import lora_arguments, merge_adapter
from peso_cli.config.schema import ConfigBackbone
from peso_cli.errors import InputError
from peso_cli.methods.adapters.fresh import Fresh
from peso_cli.methods.adapters.sd_lora import SDLoRA
from peso_cli.methods.adapters.sum_lora import SumLoRA
from peso_cli.methods.lora import lora_factors, own_factors
from peso_cli.methods.parts import AdapterStart
from peso_cli.training.checkpoints import (
    Checkpoint,
    copy_state,
    load_checkpoint,
    restore_state,
    save_checkpoint,
    trainable,
)
from peso_cli.training.steps import label_loss

ADAPTERS = [SumLoRA("latest", False), SDLoRA("all", True, True)]
EACH = pytest.mark.parametrize("adapter", ADAPTERS)
SD = pytest.mark.parametrize("adapter", [adapter for adapter in ADAPTERS if isinstance(adapter, SDLoRA)])
TIED = pytest.mark.parametrize("tied", [True, False])
ROWS = pytest.mark.parametrize(("tied", "rows"), [(True, "new_rows"), (True, "full"), (False, "new_rows")])
pytestmark = pytest.mark.filterwarnings("ignore:.*tie_word_embeddings", "ignore:.*no longer tied")
TARGETS, HEADED = LORA.targets, ("q_proj", "lm_head")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Give the config of a pretrained model."""
    folder = tmp_path_factory.mktemp("models")
    bases = {tied: save_pretrained(folder / str(tied), tied=tied) for tied in (True, False)}
    return lambda tied=True, rows="new_rows", **changes: config_of(bases[tied], trained_rows=rows, **changes)


@pytest.fixture(scope="module")
def lineage(tmp_path_factory):
    """Give what two stages left, trained once for each adapter and backbone; only to be read."""
    return cache(lambda adapter, config: stages(adapter, config, tmp_path_factory.mktemp("past"), 2))


def own_vocabulary(targets=TARGETS, tied=True):
    """The config of a backbone that is built from numbers, whose head a LoRA may enter."""
    return ConfigBackbone("config", "tiny", 32, 2, 4, 2, 48, 0.0, tied, replace(LORA, targets=targets))


def begin(adapter, config, past=(), seed=7):
    """Begin a stage upon past ones."""
    backbone = built(config)
    torch.manual_seed(seed)
    lora = lora_arguments(config, backbone.model, backbone.vocabulary)
    return adapter.begin(AdapterStart(backbone.model, lora, past))


def leave(adapter, model, folder):
    """Write what a stage leaves, as a stage does."""
    artifact = Artifact(folder)
    adapter.save(model, artifact.folder)
    artifact.write_state(adapter=adapter.state(model))
    return artifact


def stages(adapter, config, folder, count):
    """Train stages one upon the other; return what they left."""
    past = ()
    for number in range(1, count + 1):
        model = train(begin(adapter, config, past, seed=number))
        past = (*past, leave(adapter, model, folder / f"stage_{number}"))
    return past


def frozen(model):
    """Copies of all that must not change: what doesn't train, and what is registered beside the parameters."""
    kept = {name: p for name, p in model.named_parameters() if not p.requires_grad} | dict(model.named_buffers())
    return {name: tensor.clone() for name, tensor in kept.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def file_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pairs_of(adapter):
    """How many pairs a third stage has, its own included."""
    return 3 if adapter.past == "all" else 2


def magnitudes(model):
    return [p for name, p in trainable(model).items() if name.endswith("magnitudes")]


# What trains and what stays


@ROWS
@EACH
def test_the_own_pair_the_rows_and_magnitudes_train_and_nothing_else_changes(
    small, lineage, tmp_path, adapter, tied, rows
):
    config = small(tied, rows)
    past = lineage(adapter, config)
    files = [file_bytes(artifact.folder) for artifact in past]
    model = begin(adapter, config, past)
    modules = 2 * len(TARGETS)
    learnt = magnitudes(model)
    assert [len(values) for values in learnt] == [pairs_of(adapter)] * (modules if isinstance(adapter, SDLoRA) else 0)
    parameters = trainable(model)
    assert len(parameters) == 2 * modules + len(learnt) + (1 if tied else 2)
    before, moving = frozen(model), copy_state(model)
    assert sum(name.endswith("past") for name in before) == 2 * modules
    train(model)
    assert same(frozen(model), before)
    assert not any(torch.equal(p, moving[name]) for name, p in parameters.items())
    assert torch.equal(*end_weights(model)) is tied
    leave(adapter, model, tmp_path / "stage_3")
    assert [file_bytes(artifact.folder) for artifact in past] == files


@ROWS
@EACH
def test_rows_go_on_and_the_pair_is_a_copy_or_new(small, lineage, adapter, tied, rows):
    config = small(tied, rows)
    past = lineage(adapter, config)
    model = begin(adapter, config, past)
    last = PeftModel.from_pretrained(built(config).model, str(past[-1].adapter))
    for now, before in zip(end_weights(model), end_weights(last), strict=True):
        assert torch.equal(now, before)
    assert not torch.equal(end_weights(model)[0], end_weights(begin(adapter, config))[0])
    earlier = own_factors(past[-1])
    assert earlier.keys() == lora_factors(model).keys()
    for name, (a, b) in lora_factors(model).items():
        assert a.shape == earlier[name][0].shape
        assert torch.equal(a, earlier[name][0]) is adapter.inherit
        assert torch.equal(b, earlier[name][1]) is adapter.inherit
        assert a.abs().max() <= a.shape[1] ** -0.5 or adapter.inherit
        assert adapter.inherit or not b.any()


@EACH
def test_what_a_stage_trained_comes_back_as_its_own_pair(small, lineage, tmp_path, adapter):
    config = small()
    past = lineage(adapter, config)
    model = train(begin(adapter, config, past))
    found = own_factors(leave(adapter, model, tmp_path / "stage_3"))
    expected = lora_factors(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(x, y) for name in found for x, y in zip(found[name], expected[name], strict=True))


@SD
def test_the_state_tells_what_magnitudes_were_learnt_and_the_next_stage_begins_at_one(
    small, lineage, tmp_path, adapter
):
    config = small()
    past = lineage(adapter, config)
    model = train(begin(adapter, config, past))
    state = adapter.state(model)
    learnt = {name: values for name, values in state.items() if name.endswith(".magnitudes")}
    assert len(learnt) == len(lora_factors(model))
    assert all((values != 1).all() for values in learnt.values())
    again = begin(adapter, config, (*past, leave(adapter, model, tmp_path / "stage_3")))
    assert all((values == 1).all() for values in magnitudes(again))


@EACH
def test_a_stage_without_a_past_leaves_the_bytes_of_a_fresh_lora(small, tmp_path, adapter):
    config = small()
    for name, kind in (("fresh", Fresh()), ("this", adapter)):
        leave(kind, train(begin(kind, config)), tmp_path / name)
    assert file_bytes(tmp_path / "this") == file_bytes(tmp_path / "fresh")


@EACH
def test_equal_stages_leave_equal_bytes(small, tmp_path, adapter):
    config = small()
    for name in ("one", "other"):
        stages(adapter, config, tmp_path / name, 3)
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "other")


@pytest.mark.parametrize("adapter", [SumLoRA("all", False), SDLoRA("all", False, False)])
def test_a_stage_that_learnt_nothing_is_no_trouble_to_the_next(small, tmp_path, adapter):
    config = small()
    past = (leave(adapter, begin(adapter, config), tmp_path / "stage_1"),)
    model = begin(adapter, config, past)
    assert torch.equal(logits_of(model), logits_of(begin(adapter, config)))
    assert logits_of(train(model)).isfinite().all()


def test_an_embedding_is_refused_before_anything_is_trained_that_could_not_go_on():
    with pytest.raises(InputError, match=r"^backbone\.lora\.targets holds the embedding \(embed_tokens\)") as caught:
        begin(SumLoRA("all", False), own_vocabulary(("q_proj", "embed_tokens")))
    assert "\n" not in str(caught.value)


# What is written


@ROWS
@EACH
def test_plain_peft_and_the_folded_weights_score_as_the_live_model(small, lineage, tmp_path, adapter, tied, rows):
    config = small(tied, rows)
    model = train(begin(adapter, config, lineage(adapter, config)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PeftWarning)
        left = leave(adapter, model, tmp_path)
        plain = PeftModel.from_pretrained(built(config).model, str(left.adapter))
    assert torch.equal(logits_of(plain), logits_of(model))
    assert not trainable(plain)
    merged = merge_adapter(built(config).model, left.adapter)
    torch.testing.assert_close(logits_of(merged), logits_of(model), rtol=1e-4, atol=1e-4)
    saved = load_file(left.adapter / "adapter_model.safetensors")
    assert {min(t.shape) for name, t in saved.items() if ".lora_" in name} == {pairs_of(adapter) * LORA.rank}
    assert not any("parametrizations" in name for name in saved)


@EACH
def test_in_bfloat16_all_pairs_are_float32_and_what_is_written_scores_the_same(small, lineage, tmp_path, adapter):
    config = small(dtype="bfloat16")
    past = lineage(adapter, config)
    model = train(begin(adapter, config, past))
    assert {p.dtype for name, p in trainable(model).items() if "lora_" in name} == {torch.float32}
    left = leave(adapter, model, tmp_path / "stage_3")
    plain = PeftModel.from_pretrained(built(config).model, str(left.adapter))
    assert torch.equal(logits_of(plain), logits_of(model))


# Checkpoints


@ROWS
@EACH
def test_a_checkpoint_gives_the_model_back_to_the_last_bit(small, lineage, tmp_path, adapter, tied, rows):
    config = small(tied, rows)
    past = lineage(adapter, config)
    model = train(begin(adapter, config, past))
    kept, before = copy_state(model), logits_of(model)
    assert not any("past" in name for name in kept)
    save_checkpoint(tmp_path / "checkpoint", Checkpoint({"model": kept}, {}))
    assert not torch.equal(logits_of(train(model)), before)
    restore_state(model, kept)
    assert torch.equal(logits_of(model), before)
    anew = begin(adapter, config, past, seed=99)
    restore_state(anew, load_checkpoint(tmp_path / "checkpoint").parts["model"])
    assert torch.equal(logits_of(anew), before)
    assert same(copy_state(train(anew)), copy_state(train(model)))


# The head


@EACH
@TIED
def test_loss_and_gradients_of_a_head_under_a_stacked_lora_are_those_of_its_logits(lineage, adapter, tied):
    config = own_vocabulary(HEADED, tied)
    model = train(begin(adapter, config, lineage(adapter, config)))
    assert head_of(model).up.shape[1] == pairs_of(adapter) * LORA.rank
    hidden = torch.randn(9, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(9) % model.config.vocab_size
    live = [p for name, p in trainable(model).items() if "lm_head" in name]
    assert len(live) == (3 if isinstance(adapter, SDLoRA) else 2)
    loss = summed_cross_entropy(model, hidden, labels, 0.8)
    logits = model.get_output_embeddings()(hidden)
    expected = functional.cross_entropy(logits / 0.8, labels, reduction="sum")
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(*(torch.autograd.grad(x, [hidden, *live]) for x in (loss, expected)), strict=True):
        assert wanted.abs().sum() > 0
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@EACH
@TIED
def test_a_stacked_lora_on_the_head_is_folded_into_the_head_alone(lineage, tmp_path, adapter, tied):
    config = own_vocabulary(HEADED, tied)
    model = train(begin(adapter, config, lineage(adapter, config)))
    left = leave(adapter, model, tmp_path / "stage_3")
    embedding = built(config).model.get_input_embeddings().weight
    merged = merge_adapter(built(config).model, left.adapter)
    torch.testing.assert_close(logits_of(merged), logits_of(model), rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.get_input_embeddings().weight, embedding)
    plain = PeftModel.from_pretrained(built(config).model, str(left.adapter))
    assert torch.equal(logits_of(plain), logits_of(model))


@EACH
def test_the_training_loss_is_that_of_the_written_adapter(small, lineage, tmp_path, adapter):
    config = small()
    past = lineage(adapter, config)
    model = train(begin(adapter, config, past))
    left = leave(adapter, model, tmp_path / "stage_3")
    plain = PeftModel.from_pretrained(built(config).model, str(left.adapter)).eval()
    batch = some_batch(model.config.vocab_size, seed=5)
    assert torch.equal(label_loss(model, batch, 0.8), label_loss(plain, batch, 0.8))


# The command line


def test_a_run_of_several_stages_trains_and_scores(tmp_path):
    answer = peso("train", "stage=3", "method=sdlora_all_inherit", *SMALL, "trainer.epochs=1", f"output={tmp_path}")
    assert answer.code == 0, answer.err
    (folder,) = tmp_path.glob("synthetic/tiny/sdlora_all_inherit/*/seed_1")
    one, two = (Artifact(folder / f"stage_{stage}") for stage in (2, 3))
    ranks = []
    for artifact in (one, two):
        saved = load_file(artifact.adapter / "adapter_model.safetensors")
        ranks.append({len(tensor) for name, tensor in saved.items() if ".lora_A" in name})
        assert artifact.metrics()["evaluated"]
    (rank,) = ranks[0]
    assert ranks[1] == {2 * rank}
    assert {len(a) for a, _ in own_factors(two).values()} == {rank}
