import pytest
import torch
from backbones.made import Made
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from pretrained import CODES, begun, built, config_of, save_pretrained
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from peso_cli.backbones.rows import embeddings, trained_rows
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.training.checkpoints import trainable

HIDDEN, ROWS = 32, 40
KINDS = [(tied, dtype) for tied in (True, False) for dtype in ("float32", "bfloat16")]
EACH = pytest.mark.parametrize(("tied", "dtype"), KINDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pretrained models with a few rows of padding behind those of the codes."""
    folder = tmp_path_factory.mktemp("models")
    return {tied: save_pretrained(folder / str(tied), tied=tied, padding=CODES + 3) for tied in (True, False)}


@pytest.fixture(scope="module")
def models(folders):
    """Models whose code rows train and have moved away from the weights beneath."""
    found = {kind: begun(Evolving(), config_of(folders[kind[0]], dtype=kind[1])) for kind in KINDS}
    for model in found.values():
        for parameter in trainable(model).values():
            parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return found


def rows_of(model):
    """The rows that train at the embedding."""
    return model.get_input_embeddings().token_adapter.trainable_tokens_delta["default"]


@EACH
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 9))
def test_embeddings_are_those_of_the_whole_module(models, tied, dtype, seed, rows, length):
    model = models[tied, dtype]
    size = model.config.vocab_size
    tokens = torch.randint(0, size, (rows, length), generator=torch.Generator().manual_seed(seed))
    found = embeddings(model, tokens)
    assert found.dtype == getattr(torch, dtype)
    assert torch.equal(found, model.get_input_embeddings()(tokens))


@EACH
def test_every_token_is_embedded_as_by_the_whole_module(models, tied, dtype):
    model = models[tied, dtype]
    tokens = torch.arange(model.config.vocab_size)
    found, whole = embeddings(model, tokens), trained_rows(model.get_input_embeddings())
    assert torch.equal(found, model.get_input_embeddings()(tokens))
    moved = (found != whole.weight).any(1).nonzero().flatten()
    assert moved.tolist() == list(range(whole.start, whole.stop))
    assert whole.start + CODES == whole.stop < len(tokens)


@EACH
def test_both_ends_are_taken_apart_alike_where_they_are_tied(models, tied, dtype):
    model = models[tied, dtype]
    ends = [trained_rows(end) for end in (model.get_input_embeddings(), model.get_output_embeddings())]
    assert (ends[0].start, ends[0].stop) == (ends[1].start, ends[1].stop)
    assert torch.equal(ends[0].rows, ends[1].rows) is tied
    assert (ends[0].weight is ends[1].weight) is tied


def gradients(model, tokens, embed):
    """The gradients that reach parameters from some loss of embeddings."""
    model.zero_grad(set_to_none=True)
    found = embed(model, tokens)
    (found.float() * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def by_the_module(model, tokens):
    return model.get_input_embeddings()(tokens)


@EACH
def test_gradients_reach_just_the_rows_that_were_read(models, tied, dtype):
    model = models[tied, dtype]
    start = trained_rows(model.get_input_embeddings()).start
    tokens = torch.tensor([[0, start, start + 2], [start + 2, start - 1, start + CODES]])
    ((name, found),) = gradients(model, tokens, embeddings).items()
    assert "trainable_tokens_delta" in name
    assert found.abs().sum(1).nonzero().flatten().tolist() == [0, 2]
    wanted = gradients(model, tokens, by_the_module)[name]
    assert torch.allclose(found, wanted, rtol=1e-6 if dtype == "float32" else 1e-2)
    assert found.dtype == torch.float32


@EACH
def test_nothing_of_the_vocabularys_size_is_made(models, tied, dtype):
    model = models[tied, dtype]
    start, size = trained_rows(model.get_input_embeddings()).start, model.config.vocab_size
    tokens = torch.tensor([[5, start, start + 1]])
    largest = []
    for embed in (embeddings, by_the_module):
        with Made() as made:
            gradients(model, tokens, embed)
        largest.append(max(made.sizes))
    assert largest[0] == CODES * HIDDEN
    assert largest[1] == size * HIDDEN


def test_a_weight_that_could_train_gets_no_gradient(models):
    model = models[False, "float32"]
    weight = model.get_input_embeddings().token_adapter.base_layer.weight.requires_grad_(True)
    try:
        found = gradients(model, torch.tensor([[5, model.config.vocab_size - CODES]]), embeddings)
    finally:
        weight.requires_grad_(False)
    assert weight.grad is None
    assert len(found) == 1


def test_rows_that_train_are_seen_as_they_move(models):
    model = models[False, "float32"]
    tokens = torch.tensor([[trained_rows(model.get_input_embeddings()).start]])
    with torch.no_grad():
        before = embeddings(model, tokens)
        rows_of(model)[0] += 1
        assert torch.allclose(embeddings(model, tokens), before + 1)


# What the backbone looks up itself


class Words(nn.Module):
    """A language model of just an embedding and a head."""

    def __init__(self, embedding):
        super().__init__()
        self.embed_tokens, self.lm_head = embedding, nn.Linear(HIDDEN, ROWS)

    def get_input_embeddings(self):
        return self.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head


def with_rows(embedding, *rows, at="embed_tokens"):
    other = "lm_head" if at == "embed_tokens" else "embed_tokens"
    config = LoraConfig(target_modules=[other], trainable_token_indices={at: list(rows)})
    return get_peft_model(Words(embedding), config).base_model.model


TOKENS = torch.arange(ROWS)


@pytest.mark.parametrize("rows", [(0, 1, 2), (7,), (38, 39), tuple(range(ROWS))])
def test_any_run_of_rows_can_train(rows):
    model = with_rows(nn.Embedding(ROWS, HIDDEN), *rows)
    rows_of(model).data += 1
    assert torch.equal(embeddings(model, TOKENS), model.get_input_embeddings()(TOKENS))


def scaled():
    """An embedding that multiplies what it looks up."""
    return Gemma3TextScaledWordEmbedding(ROWS, HIDDEN, None, 3.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Words(nn.Embedding(ROWS, HIDDEN)),
        lambda: Words(scaled()),
        lambda: with_rows(scaled(), 7, 8),
        lambda: with_rows(nn.Embedding(ROWS, HIDDEN), 7, 9),
        lambda: with_rows(nn.Embedding(ROWS, HIDDEN), 8, 7),
    ],
    ids=["plain", "scaled", "rows of a scaled one", "rows apart", "rows in another order"],
)
def test_other_embeddings_are_left_to_the_backbone(make):
    assert embeddings(make(), TOKENS) is None


def test_a_head_with_a_bias_is_not_taken_apart():
    model = with_rows(nn.Embedding(ROWS, HIDDEN), 7, 8, at="lm_head")
    assert trained_rows(model.get_output_embeddings()) is None


@pytest.mark.parametrize("tied", [True, False])
def test_so_are_those_whose_rows_all_train_or_none(folders, tied):
    config = config_of(folders[tied], trained_rows="full")
    for model in (begun(Evolving(), config), begun(FullWeights(), config), built(config).model):
        assert embeddings(model, TOKENS) is None
