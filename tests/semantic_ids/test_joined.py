import numpy as np
import pytest
from encoders import WIDTH, Lines, encoder_of, items_of, save_encoder
from pydantic import TypeAdapter, ValidationError

from peso_cli.semantic_ids.embeddings.cooccurrence import Cooccurrence
from peso_cli.semantic_ids.embeddings.joined import Joined

TEXTS = ("a pen", "red ink", "a box of paper", "", "game case", "a pen set")
HISTORIES = [[0, 1, 2, 3], [1, 0, 2], [3, 2, 0, 1], [2, 3]]
COMPANY = Cooccurrence(width=2, window=2, seed=1)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return encoder_of(save_encoder(tmp_path_factory.mktemp("model")), normalise=False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PESO_CACHE", str(tmp_path))


def embedded(part):
    return part.embed(items_of(TEXTS, HISTORIES), Lines())


def unit(vectors):
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


@pytest.mark.parametrize("weight", [0, 0.3, 1])
def test_cosines_mix_those_of_texts_and_company(text, weight):
    found = embedded(Joined(text, COMPANY, weight))
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((6, WIDTH + 2), np.float32, True)
    words, company = unit(embedded(text)), unit(embedded(COMPANY))
    assert np.allclose(found @ found.T, (1 - weight) * words @ words.T + weight * company @ company.T, atol=1e-6)


def test_what_an_item_lacks_is_zero(text):
    found = embedded(Joined(text, COMPANY, 0.5))
    assert np.flatnonzero(~found[:, :WIDTH].any(axis=1)).tolist() == [3]
    assert np.flatnonzero(~found[:, WIDTH:].any(axis=1)).tolist() == [4, 5]
    assert np.allclose((found**2).sum(axis=1), [1, 1, 1, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_beyond_its_bounds_is_refused(text, weight):
    with pytest.raises(ValidationError, match="weight"):
        Joined(text=text, company=COMPANY, weight=weight)


def test_unknown_settings_of_either_half_are_refused():
    halves = {
        "text": {"name": "x", "colour": 1},
        "company": {"name": "cooccurrence", "width": 2, "window": 1, "seed": 0, "span": 3},
        "weight": 0.5,
    }
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Joined).validate_python(halves)
    assert {("text", "colour"), ("company", "cooccurrence", "span")} <= {
        error["loc"] for error in caught.value.errors()
    }
