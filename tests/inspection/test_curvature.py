import numpy as np
import pytest
import torch
from pretrained import begun, config_of, save_pretrained, train_a_little
from torch.nn.attention import SDPBackend, sdpa_kernel

from peso_cli.inspection.curvature import SampleLoss
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.fisher import trained_factors
from peso_cli.methods.lora import lora_factors
from peso_cli.training.layouts import Batch
from peso_cli.training.steps import label_loss

TEMPERATURE = 0.8


@pytest.fixture(scope="module")
def loss(tmp_path_factory):
    """Two batches on a small model whose adapter has trained a little."""
    config = config_of(save_pretrained(tmp_path_factory.mktemp("model")))
    model = train_a_little(begun(Evolving(), config)).double()
    rng = np.random.default_rng(0)
    batches = []
    for rows, labels in ((2, [4, 9, 15]), (1, [3, 7])):
        tokens = rng.integers(0, model.config.vocab_size, (rows, 8))
        batches.append(Batch(tokens, np.array(labels), rng.integers(0, model.config.vocab_size, len(labels))))
    return SampleLoss(model, list(trained_factors(lora_factors(model)).values()), batches, TEMPERATURE)


def some(loss, seed):
    size = sum(factor.numel() for factor in loss.factors)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_gradient_is_that_of_trainings_loss(loss):
    total = sum(label_loss(loss.model, batch, TEMPERATURE) for batch in loss.batches) / loss.labels
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(total, loss.factors)])
    assert loss.labels == 5
    assert loss.examples == 3
    torch.testing.assert_close(loss.gradient(), exact, rtol=1e-5, atol=1e-7)


def logits_of(loss):
    """(labels, vocabulary) logits of all batches, divided by the temperature, with a graph."""
    found = []
    for batch in loss.batches:
        logits = loss.model(input_ids=torch.from_numpy(batch.tokens)).logits.flatten(0, 1)
        found.append(logits[torch.from_numpy(batch.at)] / TEMPERATURE)
    return torch.cat(found)


def along(loss, logits, vector):
    """J v by going backwards twice."""
    weights = torch.zeros_like(logits, requires_grad=True)
    back = torch.autograd.grad(logits, loss.factors, weights, create_graph=True)
    pulled = torch.cat([g.flatten() for g in back]) @ vector
    return torch.autograd.grad(pulled, weights)[0]


def test_products_are_those_of_the_gauss_newton_matrix(loss):
    one, other = some(loss, 1), some(loss, 2)
    with sdpa_kernel(SDPBackend.MATH):
        tangents = [along(loss, logits_of(loss), v) for v in (one, other)]
        p = logits_of(loss).detach().softmax(1)
    centred = [t - (p * t).sum(1, keepdim=True) for t in tangents]
    exact = (p * centred[0] * centred[1]).sum() / loss.labels
    assert float(one @ loss.product(other)) == pytest.approx(float(exact), rel=1e-4)
    assert float(other @ loss.product(one)) == pytest.approx(float(exact), rel=1e-4)
    assert float(one @ loss.product(one)) > 0


def test_looking_leaves_no_gradients_behind(loss):
    loss.product(some(loss, 1))
    loss.gradient()
    assert all(parameter.grad is None for parameter in loss.model.parameters())
