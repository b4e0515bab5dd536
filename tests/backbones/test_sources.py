import os
import shutil

import pytest
from pretrained import save_pretrained

from peso_cli.backbones.sources import Source, contents
from peso_cli.config.compose import compose
from peso_cli.errors import InputError, RunError
from peso_cli.files import sha256
from peso_cli.resources.cache import find, store

NAME = "smollm2_135m"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """An empty cache."""
    monkeypatch.setenv("PESO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path):
    """A folder with a model."""
    return save_pretrained(tmp_path / "model")


@pytest.fixture
def fetched(model):
    """The same model as if it had been fetched."""

    def bring(folder, scratch):
        shutil.copytree(model, folder, dirs_exist_ok=True)
        return {"from": "wheel", "name": "some", "version": "1"}

    return store(NAME, bring, force=False)


def model_of(name):
    return Source("model", str(name), None)


def tokenizer_of(name):
    return Source("tokenizer", str(name), None)


def test_the_digest_is_that_of_the_listing_of_the_files(model):
    names = sorted(path.name for path in model.iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    listing = model.parent / "listing"
    listing.write_text("".join(f"{sha256(model / name)}  {name}\n" for name in names))
    assert model_of(model).digest() == sha256(listing)


def test_what_was_fetched_and_a_copy_of_it_are_the_same(model, fetched, tmp_path):
    copy = shutil.copytree(fetched.folder, tmp_path / "copy")
    for source in (model_of, tokenizer_of):
        assert source(NAME).digest() == source(model).digest() == source(copy).digest()
    assert model_of(NAME).digest() != tokenizer_of(NAME).digest()


@pytest.mark.parametrize(
    ("file", "shapes"),
    [
        ("model.safetensors", ("model",)),
        ("config.json", ("model", "tokenizer")),
        ("tokenizer.json", ("model", "tokenizer")),
        ("vocab.txt", ("model", "tokenizer")),
        ("README.md", ()),
        ("manifest.json", ()),
        ("pytorch_model.bin", ()),
    ],
)
def test_the_files_that_are_read_shape_the_digest(model, file, shapes):
    sources = {"model": model_of(model), "tokenizer": tokenizer_of(model)}
    before = {key: source.digest() for key, source in sources.items()}
    with (model / file).open("ab") as handle:
        handle.write(b" ")
    assert {key for key, source in sources.items() if source.digest() != before[key]} == set(shapes)


def test_a_name_of_the_hub_has_no_digest():
    assert model_of("someone/some-model").digest() is None


def test_names_of_resources_are_reserved(monkeypatch, model, tmp_path, fetched):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, tmp_path / NAME)
    (tmp_path / NAME / "config.json").write_text("{}")
    assert model_of(NAME).folder() == str(fetched.folder)
    assert model_of(f"./{NAME}").folder() == f"./{NAME}"
    assert model_of(NAME).digest() == model_of(model).digest() != model_of(f"./{NAME}").digest()


def test_what_is_not_fetched_names_the_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    for source in (model_of(NAME), tokenizer_of(NAME)):
        for ask in (source.digest, source.folder):
            with pytest.raises(InputError) as caught:
                ask()
            assert str(caught.value) == f"backbone.{source.key}={NAME}: isn't fetched yet; run: peso fetch {NAME}"


def test_the_digest_of_what_was_fetched_takes_no_look_at_its_files(fetched):
    before = model_of(NAME).digest()
    os.truncate(fetched.folder / "model.safetensors", 0)
    assert model_of(NAME).digest() == before


def test_what_was_fetched_is_checked_before_it_is_used(fetched):
    os.truncate(fetched.folder / "model.safetensors", 0)
    with pytest.raises(
        RunError, match=r"model.safetensors: changed since it was fetched; run: peso fetch smollm2_135m"
    ):
        model_of(NAME).folder()
    assert tokenizer_of(NAME).folder() == str(find(NAME).folder)


def test_contents_of_the_backbones(model, fetched):
    def of(*overrides):
        return contents(compose(overrides).config.backbone)

    assert of("backbone=tiny") == {}
    assert of("backbone=qwen3_0_6b") == {}
    assert of("backbone=smollm2_135m") == {"model": model_of(NAME).digest()}
    assert of("backbone=qwen3_0_6b", f"backbone.model={model}") == {"model": model_of(model).digest()}
    assert of("backbone=tiny_50k") == {"tokenizer": tokenizer_of(NAME).digest()}
    assert of("backbone=tiny", f"backbone.tokenizer={model}") == {"tokenizer": tokenizer_of(model).digest()}
