import json
import shutil
import warnings

import pytest
import torch
from peft import PeftModel
from pretrained import (
    CODES,
    LAYERS,
    LORA,
    begun,
    built,
    config_of,
    end_weights,
    logits_of,
    save_pretrained,
    some_batch,
    train_a_little,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.frozen import Frozen
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.training.checkpoints import copy_state, restore_state, trainable
from peso_cli.training.steps import label_loss

CASES = pytest.mark.parametrize(
    ("kind", "tied", "rows"),
    [
        ("llama", True, "new_rows"),
        ("llama", True, "full"),
        ("llama", False, "new_rows"),
        ("llama", False, "full"),
        ("qwen3", True, "new_rows"),
        ("qwen3", False, "full"),
    ],
)
FACTORS = LAYERS * LORA.rank * ((32 + 32) + (48 + 32))
"""Numbers in the factors of q_proj (32 to 32) and down_proj (48 to 32)."""


@pytest.fixture
def small(tmp_path):
    """Write a model and return its config."""

    def make(kind="llama", tied=True, rows="new_rows", **changes):
        return config_of(save_pretrained(tmp_path / "base", kind, tied), trained_rows=rows, **changes)

    return make


def file_bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@CASES
def test_just_the_factors_and_the_rows_train(small, kind, tied, rows):
    model = begun(Evolving(), small(kind, tied, rows))
    count = CODES if rows == "new_rows" else model.config.vocab_size
    ends = 1 if tied else 2
    parameters = trainable(model)
    assert len(parameters) == 2 * 2 * LAYERS + ends
    assert sum(p.numel() for p in parameters.values()) == FACTORS + ends * count * 32


@CASES
def test_training_moves_these_rows_and_leaves_the_others_and_ties_as_they_are(small, kind, tied, rows):
    model = begun(Evolving(), small(kind, tied, rows))
    before, start = end_weights(model), model.config.vocab_size - CODES
    after = end_weights(train_a_little(model))
    for old, new in zip(before, after, strict=True):
        assert not torch.isclose(old[start:], new[start:]).all(1).any()
        assert torch.equal(old[:start], new[:start]) is (rows == "new_rows")
    assert torch.equal(*after) is tied


@CASES
def test_a_stage_goes_on_just_where_the_one_before_ended(small, tmp_path, kind, tied, rows):
    config, adapter = small(kind, tied, rows), Evolving()
    first = train_a_little(begun(adapter, config))
    adapter.save(first, tmp_path / "stage_1")
    second = begun(adapter, config, tmp_path / "stage_1" / "adapter")
    assert torch.equal(logits_of(first), logits_of(second))
    mine, its = trainable(first), trainable(second)
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in mine)
    assert torch.equal(*end_weights(second)) is tied
    train_a_little(second)
    assert torch.equal(*end_weights(second)) is tied
    adapter.save(second, tmp_path / "stage_2")
    third = begun(adapter, config, tmp_path / "stage_2" / "adapter")
    assert torch.equal(logits_of(second), logits_of(third))
    assert not torch.equal(logits_of(first), logits_of(third))


@CASES
def test_an_adapter_is_a_plain_peft_folder(small, tmp_path, kind, tied, rows):
    config = small(kind, tied, rows)
    model = train_a_little(begun(Evolving(), config))
    Evolving().save(model, tmp_path / "stage_1")
    folder = tmp_path / "stage_1" / "adapter"
    assert file_bytes(folder).keys() == {"adapter_config.json", "adapter_model.safetensors"}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        plain = PeftModel.from_pretrained(built(config).model, str(folder))
    assert torch.equal(logits_of(plain), logits_of(model))
    assert not trainable(plain)


@CASES
def test_equal_stages_in_different_places_leave_equal_bytes(small, tmp_path, kind, tied, rows):
    config = small(kind, tied, rows)
    moved = tmp_path / "moved"
    shutil.copytree(config.model, moved)
    for name, place in (("one", config), ("other", config_of(moved, trained_rows=rows))):
        model = train_a_little(begun(Evolving(), place))
        Evolving().save(model, tmp_path / name / "1")
        again = begun(Evolving(), place, tmp_path / name / "1" / "adapter")
        Evolving().save(again, tmp_path / name / "2")
        FullWeights().save(begun(FullWeights(), place, tmp_path / name / "1" / "adapter"), tmp_path / name / "3")
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "other")
    assert file_bytes(tmp_path / "one" / "1") == file_bytes(tmp_path / "one" / "2")
    assert str(tmp_path).encode() not in b"".join(file_bytes(tmp_path / "one").values())


def test_the_base_is_named_if_others_know_it_by_that_name(small, tmp_path):
    model = begun(Evolving(), small())
    model.peft_config["default"].base_model_name_or_path = "someone/small-model"
    Evolving().save(model, tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "someone/small-model"
    assert config["inference_mode"]
    assert config["target_modules"] == sorted(LORA.targets)


def cut_behind_the_embedding(model):
    """Let no gradient back into the embedding, whether the decoder looks tokens up or is handed their embeddings."""

    def cut(decoder, inputs, named):
        handed = {name: named[name].detach() for name in ("inputs_embeds",) if name in named}
        return inputs, {**named, **handed}

    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.detach())
    model.get_decoder().register_forward_pre_hook(cut, with_kwargs=True)


@CASES
def test_rows_get_gradients_through_the_embedding_and_through_the_head(small, kind, tied, rows):
    model = begun(Evolving(), small(kind, tied, rows))

    def gradients():
        model.zero_grad(set_to_none=True)
        label_loss(model, some_batch(model.config.vocab_size), 1.0).backward()
        return [p.grad for name, p in trainable(model).items() if "lora_" not in name]

    both = gradients()
    cut_behind_the_embedding(model)
    head = gradients()
    assert all(gradient.abs().sum() > 0 for gradient in both)
    assert head[-1].abs().sum() > 0
    if tied:
        assert not torch.allclose(both[0], head[0])
    else:
        assert head[0] is None
        assert torch.equal(both[1], head[1])


@CASES
def test_the_loss_is_the_cross_entropy_of_the_whole_models_logits(small, kind, tied, rows):
    model = train_a_little(begun(Evolving(), small(kind, tied, rows)))
    batch = some_batch(model.config.vocab_size, seed=5)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(batch.tokens)).logits.flatten(0, 1)[torch.from_numpy(batch.at)]
        expected = torch.nn.functional.cross_entropy(logits / 0.8, torch.from_numpy(batch.labels), reduction="sum")
        assert torch.allclose(label_loss(model, batch, 0.8), expected, rtol=1e-6)


@pytest.mark.parametrize("rows", ["new_rows", "full"])
@pytest.mark.parametrize("tied", [True, False])
def test_in_bfloat16_factors_new_rows_and_the_loss_are_float32(small, tmp_path, tied, rows):
    config = small(tied=tied, rows=rows, dtype="bfloat16")
    model = begun(Evolving(), config)
    kinds = {"lora" if "lora_" in name else "rows": p.dtype for name, p in trainable(model).items()}
    assert kinds == {"lora": torch.float32, "rows": torch.float32 if rows == "new_rows" else torch.bfloat16}
    loss = label_loss(model, some_batch(model.config.vocab_size), 1.0)
    assert loss.dtype == torch.float32
    Evolving().save(train_a_little(model), tmp_path)
    again = begun(Evolving(), config, tmp_path / "adapter")
    assert torch.equal(logits_of(model), logits_of(again))


def test_dropout_acts_in_training_and_follows_from_the_seed(small):
    config = small()
    lora = type(LORA)(2, 4.0, 0.5, LORA.targets)
    model = train_a_little(begun(Evolving(), type(config)(**{**vars(config), "lora": lora})))
    batch, losses = some_batch(model.config.vocab_size), []
    for seed in (1, 1, 2):
        model.train()
        torch.manual_seed(seed)
        losses.append(label_loss(model, batch, 1.0).item())
    assert losses[0] == losses[1] != losses[2]
    assert label_loss(model.eval(), batch, 1.0) == label_loss(model, batch, 1.0)


@CASES
def test_what_trains_can_be_copied_and_restored(small, kind, tied, rows):
    model = train_a_little(begun(Evolving(), small(kind, tied, rows)))
    kept, before = copy_state(model), logits_of(model)
    assert not torch.equal(logits_of(train_a_little(model)), before)
    restore_state(model, kept)
    assert torch.equal(logits_of(model), before)
    assert torch.equal(*end_weights(model)) is tied


@CASES
def test_full_weights_begin_with_the_adapter_folded_in(small, tmp_path, kind, tied, rows):
    config = small(kind, tied, rows)
    first = train_a_little(begun(Evolving(), config))
    Evolving().save(first, tmp_path / "stage_1")
    model = begun(FullWeights(), config, tmp_path / "stage_1" / "adapter")
    assert torch.allclose(logits_of(model), logits_of(first), atol=1e-5)
    assert len(trainable(model)) == len(list(model.parameters()))
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert torch.equal(*end_weights(train_a_little(model, learning_rate=0.01))) is tied
    FullWeights().save(model, tmp_path / "stage_2")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "stage_2" / "model")
    assert torch.equal(logits_of(plain), logits_of(model))


def test_full_weights_of_a_bfloat16_model_train_in_float32(small, tmp_path):
    model = begun(FullWeights(), small(dtype="bfloat16"))
    before = copy_state(model)
    train_a_little(model, steps=1, learning_rate=1e-6)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(not torch.equal(before[name], p) for name, p in trainable(model).items() if "embed" not in name)
    FullWeights().save(model, tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}


def test_a_frozen_stage_trains_and_leaves_nothing(small, tmp_path):
    model = begun(Frozen(), small())
    Frozen().save(model, tmp_path / "stage_2")
    assert not trainable(model)
    assert not (tmp_path / "stage_2").exists()
