import json
import shutil
import time
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from pretrained import CATALOG, CODES, KINDS, built, config_of, save_pretrained, save_tokenizer
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)
from worlds import INSTRUCT

from peso_cli.backbones.build import build_backbone, vocabulary_weights
from peso_cli.config.schema import ConfigBackbone, Lora
from peso_cli.errors import InputError

TINY = ConfigBackbone("config", "tiny", 16, 2, 4, 2, 24, 0.0, True, Lora(2, 4.0, 0.0, ("q_proj",)))
SMALL = {
    "vocab_size": 300,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
EACH = pytest.mark.parametrize("kind", sorted(KINDS))
TIED = pytest.mark.parametrize("tied", [True, False])


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(config):
    with pytest.raises(InputError, match=r"^(backbone|the tokenizer)") as caught:
        built(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parts_of_a_template_that_touch_are_words_of_their_own():
    template = replace(INSTRUCT, head="{bos}go", item="on{sid}", tail="next")
    made = build_backbone(TINY, template, CATALOG, 1)
    assert len({*made.prompt.head, *made.prompt.tail, made.prompt.items[0, 0]}) == 4


@TIED
def test_a_config_makes_a_llama_of_these_numbers(tied):
    backbone = built(replace(TINY, tie_embeddings=tied))
    config = backbone.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (16, 2, 24)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.vocab_size == backbone.vocabulary.size
    assert len(vocabulary_weights(backbone.model)) == (1 if tied else 2)


def test_a_seed_gives_the_same_weights_again_and_another_one_others():
    one, again, other = (state(built(TINY, seed).model) for seed in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize(
    ("numbers", "culprit"),
    [
        ({"hidden": 18}, "backbone.hidden=18"),
        ({"hidden": 12}, "backbone.hidden=12"),
        ({"key_value_heads": 3}, "backbone.heads=4"),
        ({"key_value_heads": 8}, "backbone.heads=4"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(numbers, culprit):
    assert refused(replace(TINY, **numbers)).startswith(culprit)


def test_a_config_takes_the_vocabulary_of_a_tokenizer(tmp_path):
    old = save_tokenizer(tmp_path)
    backbone = built(replace(TINY, tokenizer=str(tmp_path)))
    assert backbone.vocabulary.sid_ids == list(range(old, old + CODES))
    assert backbone.model.config.vocab_size == backbone.vocabulary.size == old + CODES
    assert backbone.vocabulary.encode("Next") == PreTrainedTokenizerFast.from_pretrained(tmp_path).encode("Next")
    assert backbone.model.config.eos_token_id == backbone.vocabulary.end == 0
    assert built(TINY).vocabulary.size < old


@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path, damage):
    save_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[: 100 if damage == "cut" else 0])
    message = refused(replace(TINY, tokenizer=str(tmp_path)))
    assert message.startswith(f"backbone.tokenizer={tmp_path}: the tokenizer can't be loaded (")


@EACH
@TIED
def test_a_pretrained_model_keeps_what_it_knew_and_gains_rows(tmp_path, kind, tied):
    before = AutoModelForCausalLM.from_pretrained(save_pretrained(tmp_path, kind, tied))
    backbone = built(config_of(tmp_path))
    old = before.config.vocab_size
    assert backbone.vocabulary.sid_ids == list(range(old, old + CODES))
    assert len(vocabulary_weights(backbone.model)) == (1 if tied else 2)
    for weight in vocabulary_weights(backbone.model):
        assert weight.shape == (old + CODES, 32)
    tokens = torch.arange(5, 60)[None]
    with torch.no_grad():
        assert torch.equal(before(tokens).logits, backbone.model(tokens).logits[..., :old])


def test_a_model_without_a_begin_token_begins_with_its_end_token(tmp_path):
    vocabulary = built(config_of(save_pretrained(tmp_path, "qwen3"))).vocabulary
    assert vocabulary.begin == vocabulary.end == 0


@TIED
def test_new_rows_lie_near_the_mean_of_the_old_ones(tmp_path, tied):
    backbone = built(config_of(save_pretrained(tmp_path, tied=tied)))
    start = backbone.vocabulary.sid_ids[0]
    for weight in vocabulary_weights(backbone.model):
        old, new = weight[:start], weight[start:]
        spread, new_spread = (old - old.mean(0)).std(), (new - old.mean(0)).std()
        assert 0.4 * spread < new_spread < 0.6 * spread
        assert len(new.unique(dim=0)) == CODES


def test_new_rows_follow_from_the_seed(tmp_path):
    config = config_of(save_pretrained(tmp_path, tied=False))
    one, again, other = (built(config, seed).model for seed in (1, 1, 2))
    assert same(state(one), state(again))
    start = len(one.lm_head.weight) - CODES
    for mine, its in zip(vocabulary_weights(one), vocabulary_weights(other), strict=True):
        assert torch.equal(mine[:start], its[:start])
        assert not torch.isclose(mine[start:], its[start:]).all(1).any()


@TIED
@pytest.mark.parametrize("padding", [4, CODES, 40])
def test_rows_that_pad_the_vocabulary_are_used_and_never_cut_off(tmp_path, tied, padding):
    folder = save_pretrained(tmp_path, tied=tied, padding=padding)
    before = [w.detach() for w in vocabulary_weights(AutoModelForCausalLM.from_pretrained(folder))]
    backbone = built(config_of(folder))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    start = len(tokenizer)
    assert backbone.vocabulary.sid_ids == list(range(start, start + CODES))
    assert backbone.vocabulary.size == start + CODES
    for old, weight in zip(before, vocabulary_weights(backbone.model), strict=True):
        assert len(weight) == start + max(padding, CODES)
        assert torch.equal(weight[:start], old[:start])
        assert torch.equal(weight[start + CODES :], old[start + CODES :])
        assert (weight[start : start + CODES].std(1) > 0).all()


def test_a_head_of_its_own_stays_so_though_the_config_calls_it_tied(tmp_path):
    save_pretrained(tmp_path, tied=False)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    inputs, outputs = vocabulary_weights(built(config_of(tmp_path)).model)
    assert not torch.equal(inputs[:100], outputs[:100])


def test_a_backbone_has_the_precision_that_is_asked_for(tmp_path):
    model = built(config_of(save_pretrained(tmp_path), dtype="bfloat16")).model
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_generation_settings_of_a_checkpoint_are_left_behind(tmp_path):
    save_pretrained(tmp_path)
    settings = {"do_sample": False, "temperature": 0.1, "top_k": 1, "repetition_penalty": 9.0}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    model = built(config_of(tmp_path)).model
    assert not settings.keys() & model.generation_config.to_diff_dict().keys()
    model.save_pretrained(tmp_path / "again")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A hub that can't be reached and an empty cache; returns how to put a folder's files into it."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def cache(folder, name):
        home, commit = tmp_path / "hub" / f"models--{name.replace('/', '--')}", "5" * 40
        shutil.copytree(folder, home / "snapshots" / commit)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text(commit)
        return home / "snapshots" / commit

    return cache


def test_a_name_that_neither_the_disk_nor_the_hub_knows_is_refused_within_seconds(offline):
    begun = time.monotonic()
    assert "isn't cached and the hub can't be reached" in refused(config_of("someone/no-such-model"))
    assert time.monotonic() - begun < 5


def test_a_tokenizer_that_neither_the_disk_nor_the_hub_knows_is_refused(offline):
    message = refused(replace(TINY, tokenizer="someone/no-such-model"))
    assert message.startswith("backbone.tokenizer=someone/no-such-model: there is no such folder, and it isn't cached")


def test_a_name_close_to_that_of_a_resource_is_pointed_out(offline):
    assert "no such folder (did you mean smollm2_135m?), and" in refused(config_of("smolm2_135m"))


def test_a_cached_model_is_found_by_its_name_without_the_hub(offline, tmp_path):
    folder = save_pretrained(tmp_path / "model")
    cached = offline(folder, "someone/small-model")
    begun = time.monotonic()
    model = built(config_of("someone/small-model")).model
    assert time.monotonic() - begun < 5
    assert same(state(model), state(built(config_of(folder)).model))
    assert model.name_or_path == "someone/small-model"
    (cached / "model.safetensors").unlink()
    assert "model.safetensors" in refused(config_of("someone/small-model"))


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert str(tmp_path / "absent") in refused(config_of(tmp_path / "absent"))


def test_pickled_weights_are_refused(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_pretrained(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert "model.safetensors" in refused(config_of(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_a_folder_with_a_broken_file_is_refused(tmp_path, name, damage):
    path = save_pretrained(tmp_path) / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    assert "can't be loaded" in refused(config_of(tmp_path))


def test_code_that_comes_with_a_model_is_never_run(tmp_path):
    save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refused(config_of(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
    save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 50}))
    assert "no fitting model.layers.0.mlp.down_proj.weight" in refused(config_of(tmp_path))


def test_a_model_without_a_head_is_refused(tmp_path):
    save_pretrained(tmp_path, tied=False)
    LlamaModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert "no fitting lm_head.weight" in refused(config_of(tmp_path))


OTHERS = {
    "AutoModelForCausalLM": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    ),
    "looks at later tokens": lambda: BertForMaskedLM(BertConfig(**SMALL)),
    "changes the logits behind its head": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, num_key_value_heads=1, head_dim=8)
    ),
}


@pytest.mark.parametrize("why", sorted(OTHERS))
def test_what_is_no_plain_causal_language_model_is_refused(tmp_path, why):
    save_tokenizer(tmp_path)
    OTHERS[why]().save_pretrained(tmp_path)
    assert why in refused(config_of(tmp_path))


def with_window(window):
    """A model whose tokens see so many tokens, themselves among them."""
    heads = {"num_key_value_heads": 1, "head_dim": 8}
    return MistralForCausalLM(MistralConfig(**SMALL, **heads, sliding_window=window, initializer_range=0.3))


def with_capped_scores():
    """A model whose attention caps scores, and whose logits are just its head's."""
    heads = {"num_key_value_heads": 1, "head_dim": 8}
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, **heads, final_logit_softcapping=None, initializer_range=0.3))


def longest_prompt():
    """How many tokens the template's longest prompt has, with its answer."""
    return len("Picked so far: ") + 1 + INSTRUCT.window * (3 + len("; ")) + len("\nNext: ") + 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: GPTJForCausalLM(GPTJConfig(vocab_size=300, n_embd=16, n_layer=1, n_head=2, rotary_dim=4)),
        with_capped_scores,
        lambda: with_window(longest_prompt() - 1),
    ],
)
def test_attention_that_can_not_be_packed_is_refused(tmp_path, make):
    save_tokenizer(tmp_path)
    torch.manual_seed(0)
    make().save_pretrained(tmp_path)
    message = refused(config_of(tmp_path))
    assert message.startswith(f"backbone.model={tmp_path}: its attention (")
    assert "give another model, or a smaller prompt.window" in message


def test_a_window_as_long_as_the_longest_prompt_will_do(tmp_path):
    save_tokenizer(tmp_path)
    with_window(longest_prompt()).save_pretrained(tmp_path)
    assert built(config_of(tmp_path)).prompt.longest(INSTRUCT.window) == longest_prompt()


def test_a_smaller_prompt_makes_a_short_window_long_enough(tmp_path):
    save_tokenizer(tmp_path)
    with_window(longest_prompt() - 1).save_pretrained(tmp_path)
    build_backbone(config_of(tmp_path), replace(INSTRUCT, window=INSTRUCT.window - 1), CATALOG, 1)


def test_a_tokenizer_that_holds_codes_already_is_refused(tmp_path, shared):
    for file in (shared / "golden" / "tiny_llama").iterdir():
        shutil.copy(file, tmp_path)
    assert "already has tokens such as <a_0>" in refused(config_of(tmp_path))


def test_a_tokenizer_with_gaps_between_its_ids_is_refused(tmp_path):
    save_pretrained(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["Z"] = 5000
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "gaps" in refused(config_of(tmp_path))


def test_the_prompt_is_rendered_for_the_vocabulary(tmp_path):
    backbone = build_backbone(config_of(save_pretrained(tmp_path)), INSTRUCT, CATALOG, 1)
    tokens = backbone.prompt.tokens(np.array([3, 4], dtype=np.int32))
    decoded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    size = len(decoded)
    text = "".join(decoded.decode([t]) if t < size else "#" for t in tokens[1:])
    assert tokens[0] == backbone.vocabulary.begin
    assert text == "Picked so far: ###; ###; \nNext: "
