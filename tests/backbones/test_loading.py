import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained import (
    CATALOG,
    LORA,
    begun,
    built,
    config_of,
    end_weights,
    logits_of,
    save_pretrained,
    save_tokenizer,
    train_a_little,
)
from transformers import PhiConfig, PhiForCausalLM

from peso_cli.artifacts import Artifact
from peso_cli.backbones.build import vocabulary_weights
from peso_cli.backbones.loading import load_for_inference, load_weights, lora_arguments
from peso_cli.config.compose import compose
from peso_cli.config.schema import ConfigBackbone, Decoding
from peso_cli.errors import InputError
from peso_cli.evaluation.ranking import Ranker
from peso_cli.files import read_json
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.methods.parts import AdapterStart
from peso_cli.stages import ensure, open_run
from peso_cli.training.checkpoints import trainable

TINY = ConfigBackbone("config", "tiny", 32, 2, 4, 2, 48, 0.0, True, LORA)
CASES = pytest.mark.parametrize(
    ("kind", "tied", "rows"),
    [(kind, tied, rows) for kind in ("llama", "qwen3") for tied in (True, False) for rows in ("new_rows", "full")],
)


def arguments(config):
    backbone = built(config)
    return lora_arguments(config, backbone.model, backbone.vocabulary)


def refused(config):
    with pytest.raises(InputError, match=r"^backbone\.") as caught:
        arguments(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lineage(folder: Path, *stages):
    """Save (adapter, model) of each stage as artifacts."""
    artifacts = []
    for number, (adapter, model) in enumerate(stages, start=1):
        artifacts.append(Artifact(folder / f"stage_{number}"))
        if model is not None:
            adapter.save(model, artifacts[-1].folder)
    return artifacts


@CASES
def test_inference_gives_the_logits_of_the_trained_model(tmp_path, kind, tied, rows):
    config = config_of(save_pretrained(tmp_path / "base", kind, tied), trained_rows=rows)
    model = train_a_little(begun(Evolving(), config))
    loaded = load_for_inference(built(config).model, lineage(tmp_path, (Evolving(), model)))
    assert torch.allclose(logits_of(loaded), logits_of(model), rtol=0, atol=1e-5)
    assert not any("lora" in name or "token_adapter" in name for name, _ in loaded.named_parameters())
    assert len(vocabulary_weights(loaded)) == (1 if tied else 2)
    for mine, its in zip(end_weights(loaded), end_weights(model), strict=True):
        assert torch.equal(mine, its)


def test_inference_in_bfloat16_comes_close(tmp_path):
    config = config_of(save_pretrained(tmp_path / "base"), dtype="bfloat16")
    model = train_a_little(begun(Evolving(), config))
    loaded = load_for_inference(built(config).model, lineage(tmp_path, (Evolving(), model)))
    assert loaded.dtype == torch.bfloat16
    expected = logits_of(model)
    assert (logits_of(loaded) - expected).abs().max() < 0.05 * expected.std()


def test_the_newest_adapter_of_a_lineage_counts(tmp_path):
    config = config_of(save_pretrained(tmp_path / "base"))
    first = train_a_little(begun(Evolving(), config))
    (one,) = lineage(tmp_path, (Evolving(), first))
    second = train_a_little(begun(Evolving(), config, one.adapter))
    stages = lineage(tmp_path, (Evolving(), None), (Evolving(), second), (None, None))
    assert load_weights(built(config).model, stages)[-1] == stages[1]
    assert torch.allclose(logits_of(load_for_inference(built(config).model, stages)), logits_of(second), atol=1e-5)
    assert torch.equal(logits_of(load_for_inference(built(config).model, [])), logits_of(built(config).model))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_whole_weights_take_the_place_of_what_came_before(tmp_path, tied, dtype):
    config = config_of(save_pretrained(tmp_path / "base", tied=tied), dtype=dtype)
    first = train_a_little(begun(Evolving(), config))
    (one,) = lineage(tmp_path, (Evolving(), first))
    second = train_a_little(begun(FullWeights(), config, one.adapter), learning_rate=0.01)
    stages = lineage(tmp_path, (Evolving(), None), (FullWeights(), second))
    model = built(config).model
    assert load_weights(model, stages) == ()
    assert torch.equal(logits_of(model), logits_of(second))
    assert torch.equal(logits_of(load_for_inference(built(config).model, stages)), logits_of(second))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [("lm_head",), ("embed_tokens",), ("embed_tokens", "lm_head", "q_proj")])
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings", "ignore:.*no longer tied")
def test_a_lora_may_enter_the_ends_of_a_backbone_from_a_config(tmp_path, targets, tied):
    config = replace(TINY, tie_embeddings=tied, lora=replace(LORA, targets=targets))
    base = train_a_little(begun(FullWeights(), config), learning_rate=0.01)
    (one,) = lineage(tmp_path, (FullWeights(), base))
    backbone = built(config)
    assert load_weights(backbone.model, [one]) == ()
    torch.manual_seed(1)
    lora = lora_arguments(config, backbone.model, backbone.vocabulary)
    model = Evolving().begin(AdapterStart(backbone.model, lora))
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trainable(model)} == set(targets)
    assert torch.equal(logits_of(model), logits_of(base))
    train_a_little(model)
    assert not torch.allclose(logits_of(model), logits_of(base), atol=1e-2)
    stages = lineage(tmp_path, (FullWeights(), None), (Evolving(), model))
    assert torch.allclose(logits_of(load_for_inference(built(config).model, stages)), logits_of(model), atol=1e-5)


def test_generation_settings_of_a_checkpoint_change_no_recommendation(tmp_path):
    rankings = []
    for name in ("plain", "odd"):
        folder = save_pretrained(tmp_path / name)
        if name == "odd":
            settings = {"do_sample": True, "top_k": 1, "temperature": 9.0, "num_beams": 3, "bad_words_ids": [[260]]}
            (folder / "generation_config.json").write_text(json.dumps(settings))
        backbone = built(config_of(folder))
        decoding = Decoding(10, "trie", "vocabulary", 4096)
        ranker = Ranker(backbone.model, backbone.vocabulary, backbone.prompt, CATALOG, decoding)
        rankings.append(ranker.rank([np.array(h, dtype=np.int32) for h in ([3], [4, 5, 6], [])], 10))
    assert np.array_equal(rankings[0].rows, rankings[1].rows)
    assert np.array_equal(rankings[0].scores, rankings[1].scores)


@pytest.mark.parametrize(
    ("targets", "hint"),
    [
        (("q_prj",), "did you mean q_proj?"),
        (("q_proj", "kproj"), "holds kproj"),
        (("mlp",), "holds mlp"),
        (("proj",), "holds proj"),
    ],
)
def test_targets_that_name_no_layer_are_refused(tmp_path, targets, hint):
    for config in (TINY, config_of(save_pretrained(tmp_path))):
        message = refused(replace(config, lora=replace(LORA, targets=targets)))
        assert hint in message
        assert "q_proj" in message


@pytest.mark.parametrize("rows", ["new_rows", "full"])
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens"])
def test_targets_whose_rows_train_already_are_refused(tmp_path, target, rows):
    config = config_of(save_pretrained(tmp_path), trained_rows=rows, lora=replace(LORA, targets=("q_proj", target)))
    assert f"holds {target}, whose rows train already (backbone.trained_rows={rows})" in refused(config)


@pytest.mark.parametrize(
    ("tied", "rows", "works"), [(False, "full", True), (False, "new_rows", False), (True, "full", False)]
)
def test_a_head_with_a_bias_keeps_it_or_is_refused(tmp_path, tied, rows, works):
    size = save_tokenizer(tmp_path)
    torch.manual_seed(0)
    model = PhiForCausalLM(
        PhiConfig(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            tie_word_embeddings=tied,
        )
    )
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    config = config_of(tmp_path, trained_rows=rows, lora=replace(LORA, targets=("q_proj",)))
    if not works:
        assert "bias" in refused(config)
        return
    wrapped = begun(Evolving(), config)
    assert torch.equal(logits_of(wrapped), logits_of(built(config).model))


class Silent:
    def say(self, text):
        pass

    def bar(self, title):
        return lambda done, total, note: None


def run_of(folder, output, *overrides):
    """Open a small run on a pretrained folder."""
    plain = ["backbone=smollm2_135m", f"backbone.model={folder}", "dataset.users=60", "dataset.items=80"]
    plain += ["trainer.epochs=1", "tracker=none", f"output={output}", "dataset.stages=3", "variant=small"]
    return open_run(compose([*plain, "trainer.batch_tokens=1024", *overrides]))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run folder that holds a finished stage 1, and the model it was made from."""
    folder = tmp_path_factory.mktemp("pretrained")
    save_pretrained(folder / "model")
    run = run_of(folder / "model", folder / "runs", "prompt=instruct")
    ensure(run, (1,), Silent())
    return folder


def figures(run, stage):
    metrics = read_json(run.artifact(stage).folder / "metrics.json")
    return metrics["evaluated"][str(stage)]["test"], metrics["training"]


@pytest.mark.parametrize("method", ["peso", "single", "pretrain", "full"])
def test_every_method_goes_on_from_the_same_first_stage(base, method):
    run = run_of(base / "model", base / "runs", "prompt=instruct", f"method={method}")
    mark = run.artifact(1).folder / "DONE"
    before = mark.stat().st_mtime_ns
    ensure(run, (3,), Silent())
    assert mark.stat().st_mtime_ns == before
    first, last = run.artifact(1), run.artifact(3)
    assert first.adapter
    assert not first.weights
    assert (bool(last.adapter), bool(last.weights)) == (method in ("peso", "single"), method == "full")
    shown, training = figures(run, 3)
    assert shown["users"] > 0
    assert (training is None) is (method == "pretrain")
    if method == "peso":
        assert np.isfinite(training["history"][-1]["penalty"])
        assert training["history"][-1]["penalty"] > 0


@pytest.mark.parametrize(
    "overrides",
    [
        ("prompt=compact", "method=peso"),
        ("prompt=instruct", "method=peso", "backbone.dtype=bfloat16"),
        ("prompt=compact", "method=single", "backbone.dtype=bfloat16", "backbone.trained_rows=full"),
        ("prompt=compact", "method=full", "backbone.dtype=bfloat16"),
    ],
)
def test_other_prompts_rows_and_precisions_run_too(base, tmp_path, overrides):
    run = run_of(base / "model", tmp_path, *overrides)
    ensure(run, (2,), Silent())
    shown, training = figures(run, 2)
    assert shown["users"] > 0
    assert np.isfinite(training["history"][-1]["validation_loss"])
    assert np.isfinite(training["history"][-1].get("penalty", 0.0))
    assert len(run.require(2)) == 2


def test_a_name_of_no_model_ends_a_run_before_it_begins(tmp_path):
    with pytest.raises(InputError, match=r"backbone\.model=.*there is no such folder"):
        ensure(run_of(tmp_path / "absent", tmp_path / "runs"), (1,), Silent())
