import copy
from functools import partial

import pytest
import torch
from backbones.made import Made
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from pretrained import CODES, begun, config_of, save_pretrained
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from peso_cli.backbones import head as module
from peso_cli.backbones.head import head_of, summed_cross_entropy
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights

HIDDEN = 32


class Ends(nn.Module):
    """Just the head of a language model."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def get_output_embeddings(self):
        return self.head


class Model(nn.Module):
    """A language model of an embedding and a head."""

    def __init__(self, tied):
        super().__init__()
        self.embed_tokens, self.lm_head = nn.Embedding(40, HIDDEN), nn.Linear(HIDDEN, 40, bias=False)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, tokens):
        return self.lm_head(self.embed_tokens(tokens))

    def get_input_embeddings(self):
        return self.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head


def linear(frozen=False, bias=False):
    return Ends(nn.Linear(HIDDEN, 40, bias=bias).requires_grad_(not frozen))


def with_lora(tied=False, frozen=True, **settings):
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["lm_head"], init_lora_weights=False, **settings)
    model = get_peft_model(Model(tied), config).base_model.model
    model.get_output_embeddings().base_layer.weight.requires_grad_(not frozen)
    return model


def with_rows(*rows):
    config = LoraConfig(target_modules=["embed_tokens"], trainable_token_indices={"lm_head": list(rows)})
    model = get_peft_model(Model(tied=False), config).base_model.model
    with torch.no_grad():
        model.get_output_embeddings().token_adapter.trainable_tokens_delta["default"] += 1
    return model


OWN = {
    "a head that trains": linear,
    "a frozen head": lambda: linear(frozen=True),
    "a head with a bias": lambda: linear(bias=True),
    "no head at all": lambda: Ends(nn.Identity()),
    "a lora": with_lora,
    "a lora on tied weights": lambda: with_lora(tied=True),
    "a lora on weights that train": lambda: with_lora(frozen=False),
    "a lora with a bias": lambda: with_lora(lora_bias=True),
    "first rows": lambda: with_rows(0, 1, 2),
    "last rows": lambda: with_rows(38, 39),
    "rows apart": lambda: with_rows(5, 9),
    "rows in another order": lambda: with_rows(9, 8, 7),
}
PRETRAINED = [
    (adapter, rows, tied)
    for adapter, rows in ((Evolving, "new_rows"), (Evolving, "full"), (FullWeights, "full"))
    for tied in (False, True)
]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Pretrained models that are begun on, made once."""
    folder = tmp_path_factory.mktemp("models")
    folders = {tied: save_pretrained(folder / str(tied), tied=tied, padding=3) for tied in (False, True)}
    models = {}
    for adapter, rows, tied in PRETRAINED:
        models[adapter, rows, tied] = begun(adapter(), config_of(folders[tied], trained_rows=rows))
    return models


def inputs(model, count, seed=0):
    """Random hidden states of a width that the head takes, and labels of all kinds."""
    random = torch.Generator().manual_seed(seed)
    weight = getattr(model.get_output_embeddings(), "weight", None)
    width, size = (HIDDEN, HIDDEN) if weight is None else (weight.shape[1], weight.shape[0])
    hidden = torch.randn(count, width, generator=random, requires_grad=True)
    return hidden, torch.randint(0, size, (count,), generator=random)


def plainly(model, hidden, labels, temperature):
    """What must come out."""
    logits = model.get_output_embeddings()(hidden)
    return functional.cross_entropy(logits.float() / temperature, labels, reduction="sum")


def loss_and_gradients(make, model, hidden, labels, temperature, weight=1.0):
    """A loss and the gradients of hidden states and parameters that come from a share of it."""
    model.zero_grad(set_to_none=True)
    hidden.grad = None
    loss = make(model, hidden, labels, temperature)
    (weight * loss).backward()
    return loss, {"hidden": hidden.grad, **{name: p.grad for name, p in model.named_parameters()}}


def check(model, hidden, labels, temperature, weight=1.0):
    """Compare loss and all gradients."""
    (loss, found), (expected, wanted) = (
        loss_and_gradients(make, model, hidden, labels, temperature, weight) for make in (summed_cross_entropy, plainly)
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] is None) == (gradient is None), name
        if gradient is not None:
            assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


chunks, temperatures = st.integers(1, 2000), st.floats(0.3, 3)


@pytest.mark.parametrize("kind", sorted(OWN))
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), temperatures, chunks, st.floats(0.1, 2))
def test_value_and_gradients_are_those_of_the_cross_entropy(kind, count, temperature, chunk, weight):
    torch.manual_seed(1)
    model = OWN[kind]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        check(model, *inputs(model, count), temperature, weight)


@pytest.mark.parametrize("chunk", [1, 2500, 1 << 23])
@pytest.mark.parametrize(("adapter", "rows", "tied"), PRETRAINED)
def test_so_are_they_for_pretrained_models(downloads, monkeypatch, adapter, rows, tied, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    model = downloads[adapter, rows, tied]
    check(model, *inputs(model, 23), 0.8)


@pytest.mark.parametrize("kind", sorted(OWN))
def test_hidden_states_need_no_gradient_of_their_own(kind):
    model = OWN[kind]()
    hidden, labels = inputs(model, 9)
    hidden.requires_grad_(False)
    loss, expected = (make(model, hidden, labels, 0.7) for make in (summed_cross_entropy, plainly))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss.requires_grad == expected.requires_grad


def weighted(model, hidden, labels, temperature, weights):
    """What must come out where labels weigh differently."""
    logits = model.get_output_embeddings()(hidden)
    losses = functional.cross_entropy(logits / temperature, labels, reduction="none")
    return (weights.to(losses.dtype) * losses).sum()


def check_weighted(model, count, temperature, seed=0):
    """Compare loss and all gradients under weights with those of plain autograd in double precision."""
    hidden, labels = inputs(model, count, seed)
    weights = torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 3
    weights[::5] = 0.0
    exact = copy.deepcopy(model).double()
    loss, found = loss_and_gradients(partial(summed_cross_entropy, weights=weights), model, hidden, labels, temperature)
    wanted_loss, wanted = loss_and_gradients(
        partial(weighted, weights=weights), exact, hidden.detach().double().requires_grad_(), labels, temperature
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    for name, gradient in wanted.items():
        assert (found[name] is None) == (gradient is None), name
        if gradient is not None:
            assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert found["hidden"][::5].abs().max() == 0


@pytest.mark.parametrize("kind", sorted(OWN))
@settings(max_examples=10, deadline=None)
@given(st.integers(2, 50), temperatures, chunks, st.integers(0, 99))
def test_labels_may_weigh_differently(kind, count, temperature, chunk, seed):
    torch.manual_seed(1)
    model = OWN[kind]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        check_weighted(model, count, temperature, seed)


@pytest.mark.parametrize(("adapter", "rows", "tied"), PRETRAINED)
def test_so_they_may_for_pretrained_models(downloads, monkeypatch, adapter, rows, tied):
    monkeypatch.setattr(module, "_CHUNK", 2500)
    check_weighted(downloads[adapter, rows, tied], 23, 0.8)


@pytest.mark.parametrize("kind", sorted(OWN))
def test_in_double_precision_weights_multiply_gradients_too(kind):
    model = OWN[kind]().double()
    hidden, labels = inputs(model, 9)
    weights = torch.linspace(0, 2, 9)
    found, wanted = (
        loss_and_gradients(
            partial(make, weights=weights), model, hidden.detach().double().requires_grad_(), labels, 0.7
        )
        for make in (summed_cross_entropy, weighted)
    )
    assert found[0].item() == pytest.approx(wanted[0].item(), rel=1e-6)
    for name, gradient in wanted[1].items():
        if gradient is not None:
            assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_the_gradient_can_be_taken_twice():
    model = linear()
    hidden, labels = inputs(model, 9)
    loss = summed_cross_entropy(model, hidden, labels, 1.0)
    first, second = (torch.autograd.grad(loss, hidden, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_large_logits_neither_overflow_nor_vanish():
    model = linear()
    hidden, labels = inputs(model, 9)
    check(model, (1e4 * hidden.detach()).requires_grad_(), labels, 0.5)


def test_in_bfloat16_the_loss_is_float32_and_close():
    model = linear()
    hidden, labels = inputs(model, 40)
    expected = plainly(model, hidden, labels, 0.8).item()
    loss, found = loss_and_gradients(
        summed_cross_entropy, model.to(torch.bfloat16), hidden.detach().bfloat16().requires_grad_(), labels, 0.8
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-2)
    assert {gradient.dtype for gradient in found.values()} == {torch.bfloat16}


def test_the_adapters_dropout_acts_in_training_only():
    model = with_lora(lora_dropout=0.5)
    hidden, labels = inputs(model, 9)
    for seed in (1, 2):
        losses = []
        for make in (summed_cross_entropy, plainly):
            torch.manual_seed(seed)
            losses.append(make(model.train(), hidden, labels, 1.0).item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0] != pytest.approx(plainly(model.eval(), hidden, labels, 1.0).item(), rel=1e-4)
    check(model, hidden, labels, 1.0)


# What it costs


def largest_made(model, count):
    """The numbers of the largest tensor that comes into being in a forward and backward pass."""
    hidden, labels = inputs(model, count)
    with Made() as made:
        summed_cross_entropy(model, hidden, labels, 0.8).backward()
    return max(made.sizes)


@pytest.mark.parametrize("tied", [False, True])
def test_pretrained_rows_that_do_not_train_get_no_gradient(downloads, tied):
    vocabulary, width = downloads[Evolving, "new_rows", tied].get_output_embeddings().weight.shape
    blocks = head_of(downloads[Evolving, "new_rows", tied]).blocks
    assert largest_made(downloads[Evolving, "new_rows", tied], 7) == 7 * max(map(len, blocks))
    assert 7 * vocabulary < (vocabulary - CODES) * width
    assert largest_made(downloads[Evolving, "full", tied], 7) == vocabulary * width
    rows = [block.shape[0] for block in blocks if block.requires_grad]
    assert rows == [CODES]


@pytest.mark.parametrize("chunk", [40 * 5, 40 * 50])
def test_no_more_logits_than_a_chunk_are_held(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    assert largest_made(with_lora(), 64) == max(64 * HIDDEN, chunk)


def of_addmm(total, one, other, **_):
    return 2 * one[0] * one[1] * other[1]


def flops(model, hidden, labels, backward):
    """What the matrix products of a forward pass, and a backward pass if asked for, cost."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: of_addmm}) as counter:
        loss = summed_cross_entropy(model, hidden, labels, 0.8)
        if backward:
            loss.backward()
    return counter.get_total_flops()


def test_only_what_trains_costs_a_gradient():
    for model, trained in ((linear(), 40), (linear(frozen=True), 0)):
        hidden, labels = inputs(model, 9)
        one_product = 2 * 9 * HIDDEN
        assert flops(model, hidden, labels, True) == one_product * (40 + 40 + trained)
        assert flops(model, hidden.detach(), labels, False) == one_product * (40 + trained)


@pytest.mark.parametrize("kind", ["a head that trains", "a lora"])
def test_without_gradients_none_is_worked_out(kind):
    model = OWN[kind]()
    hidden, labels = inputs(model, 9)
    with torch.no_grad():
        forward = flops(model, hidden.detach(), labels, False)
        assert forward == 2 * 9 * (HIDDEN * 40 + (3 * (HIDDEN + 40) if kind == "a lora" else 0))
        assert summed_cross_entropy(model, hidden, labels, 0.8).item() == pytest.approx(
            plainly(model, hidden, labels, 0.8).item(), rel=1e-6
        )
