from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from encoders import LONGEST, WIDTH, WORDS, Lines, encoder_of, items_of, save_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from peso_cli.config.parts import PARTS, make_part
from peso_cli.errors import InputError, RunError
from peso_cli.semantic_ids.embeddings import encoding, text_model
from peso_cli.semantic_ids.embeddings.text_model import batches

CONF = Path(__file__).resolve().parents[2] / "conf" / "embedding"
RNG = np.random.default_rng(4)
TEXTS = tuple(" ".join(RNG.choice(WORDS, RNG.integers(1, 40))) for _ in range(40))


@pytest.fixture(scope="module", params=["bert", "llama", "t5"])
def model(request, tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def embedded(encoder, texts, display=None):
    return encoder.embed(items_of(texts), display or Lines())


def parts(cache):
    return sorted((cache / "embeddings").rglob("*.parquet"))


def plain(folder, text, pooling, normalise):
    """One text by itself, as the model's own library reads it."""
    tokens = AutoTokenizer.from_pretrained(folder)(text, truncation=True, max_length=LONGEST, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.no_grad():
        states = reader(input_ids=tokens["input_ids"]).last_hidden_state[0]
    vector = (states.mean(dim=0) if pooling == "mean" else states[-1]).numpy()
    return vector / np.linalg.norm(vector) if normalise else vector


@pytest.mark.parametrize(("pooling", "normalise"), [("mean", True), ("mean", False), ("last", False)])
def test_batches_give_what_each_text_gives_alone(model, pooling, normalise):
    found = embedded(encoder_of(model, pooling=pooling, normalise=normalise), TEXTS)
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((len(TEXTS), WIDTH), np.float32, True)
    for row in range(0, len(TEXTS), 7):
        assert np.allclose(found[row], plain(model, TEXTS[row], pooling, normalise), rtol=0, atol=2e-5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30)), st.integers(1, 100))
def test_every_row_with_tokens_comes_in_one_batch_that_fits(lengths, most):
    found = list(batches(lengths, most))
    assert sorted(row for batch in found for row in batch) == [row for row, length in enumerate(lengths) if length]
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= most


def test_items_without_text_get_zeros_and_are_counted(bert):
    display = Lines()
    found = embedded(encoder_of(bert), ("a pen", "", "red ink", ""), display)
    assert not found[[1, 3]].any()
    assert np.allclose(np.linalg.norm(found[[0, 2]], axis=1), 1)
    assert display.said == [
        "small: 2 distinct texts, 0 of them embedded before; 2 items without text get the zero vector"
    ]
    assert display.ticks[-1] == (2, 2)
    with pytest.raises(InputError, match="no item has a text"):
        embedded(encoder_of(bert), ("", ""))


def test_a_text_without_tokens_gets_zeros(tmp_path):
    found = embedded(encoder_of(save_encoder(tmp_path, "llama"), normalise=False), ("\u2028", "a pen"))
    assert not found[0].any()
    assert found[1].any()


def test_what_was_embedded_before_is_not_embedded_again(bert, cache, monkeypatch):
    first = embedded(encoder_of(bert), TEXTS)
    monkeypatch.setattr(text_model, "load_text_model", lambda *_: pytest.fail("the model isn't needed"))
    assert embedded(encoder_of(bert, batch_tokens=7, name="other"), TEXTS[::-1]).tobytes() == first[::-1].tobytes()
    assert len(parts(cache)) == 1


def test_new_items_cost_only_themselves_and_old_ones_keep_their_bytes(bert):
    first = embedded(encoder_of(bert), TEXTS[:20])
    display = Lines()
    whole = embedded(encoder_of(bert, batch_tokens=1000), TEXTS, display)
    assert whole[:20].tobytes() == first.tobytes()
    assert "40 distinct texts, 20 of them embedded before" in display.said[0]
    assert display.ticks[-1] == (20, 20)


@pytest.mark.parametrize("change", [{"pooling": "last"}, {"max_tokens": 5}, {"normalise": False}])
def test_other_settings_and_other_weights_have_a_cache_of_their_own(bert, tmp_path, cache, change):
    first = embedded(encoder_of(bert), TEXTS)
    assert not np.array_equal(embedded(encoder_of(bert, **change), TEXTS), first)
    other = save_encoder(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({k: v * 2 for k, v in weights.items()}, other / "model.safetensors", {"format": "pt"})
    assert not np.array_equal(embedded(encoder_of(other), TEXTS), first)
    assert len({part.parent for part in parts(cache)}) == 3


def test_an_interrupted_run_goes_on_where_it_stopped(bert, cache, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 16)

    class Stopping(Lines):
        def bar(self, title):
            def tick(done, total, note):
                if done > 20:
                    raise KeyboardInterrupt

            return tick

    with pytest.raises(KeyboardInterrupt):
        embedded(encoder_of(bert), TEXTS, Stopping())
    assert [pl.read_parquet(part).height for part in parts(cache)] == [16]
    display = Lines()
    found = embedded(encoder_of(bert), TEXTS, display)
    assert "16 of them embedded before" in display.said[0]
    assert np.allclose(found[3], plain(bert, TEXTS[3], "mean", True), rtol=0, atol=2e-5)
    assert not list(cache.rglob("*.part"))


def test_a_damaged_part_is_named_and_once_removed_costs_its_texts(bert, cache, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 16)
    embedded(encoder_of(bert), TEXTS)
    damaged = parts(cache)[1]
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(RunError, match=r"part_000002.parquet: can't be read") as caught:
        embedded(encoder_of(bert), TEXTS)
    assert "\n" not in str(caught.value)
    damaged.unlink()
    display = Lines()
    embedded(encoder_of(bert), TEXTS, display)
    assert "24 of them embedded before" in display.said[0]
    assert [part.stem for part in parts(cache)] == ["part_000001", "part_000003", "part_000004"]


def refusal(encoder, kind=InputError):
    with pytest.raises(kind) as caught:
        embedded(encoder, TEXTS[:2])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_that_is_not_fetched_is_named_with_the_command(tmp_path):
    message = refusal(encoder_of(tmp_path, model="smollm2_135m"))
    assert message == "embedding.model=smollm2_135m: isn't fetched yet; run: peso fetch smollm2_135m"


def test_a_model_that_is_nowhere_is_refused(monkeypatch):
    monkeypatch.setattr("peso_cli.backbones.sources.hub_answers", lambda: False)
    message = refusal(encoder_of(Path("nobody/nothing")))
    assert message.startswith("embedding.model=nobody/nothing: there is no such folder")
    assert "can't be reached" in message


def test_more_tokens_than_the_model_reads_are_refused(bert):
    assert refusal(encoder_of(bert, max_tokens=25)) == f"embedding.max_tokens=25: {bert} reads 24 at most"


def test_pickled_weights_and_incomplete_ones_are_refused(tmp_path):
    folder = save_encoder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "layer.1" in name)
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    assert f"hold no {lost}" in refusal(encoder_of(folder))
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "the model can't be loaded" in refusal(encoder_of(folder))


def test_weights_that_give_no_numbers_are_named(tmp_path):
    folder = save_encoder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "gives no numbers" in refusal(encoder_of(folder), RunError)


@pytest.mark.parametrize("name", ["minilm", "encoder", "joined", "cooccurrence", "array"])
def test_each_choice_makes_a_part(name):
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text().replace("${device}", "auto").replace("???", "here"))
    part = make_part("embedding", settings, PARTS["embedding"])
    assert part.name == name
    assert callable(part.embed)


def test_texts_of_later_stages_change_no_bit_of_earlier_vectors(bert, monkeypatch, tmp_path):
    items = items_of(TEXTS)
    later = replace(items, stage=np.where(np.arange(len(TEXTS)) < 15, 1, 2).astype(np.int32))
    encoder = encoder_of(bert)
    both = encoder.embed(later, Lines())
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "another"))
    alone = encoder.embed(items_of(TEXTS[:15]), Lines())
    assert alone.tobytes() == both[:15].tobytes()
