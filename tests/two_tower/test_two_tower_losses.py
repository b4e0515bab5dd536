"""What two-tower models minimise, against values worked out by hand."""

import numpy as np
import pytest
import torch

from peso_cli.two_tower.batches import PairBatch
from peso_cli.two_tower.losses import bpr, info_nce, jensen_shannon, shares, top_share
from peso_cli.two_tower.models import FactorModel

NEAR = 0.126928011  # log(1 + e^-2)
FAR = 2.126928011  # log(1 + e^2)
CROSS = torch.eye(2)


def test_bpr_is_the_log_likelihood_that_the_item_is_ranked_before_the_other():
    users, liked, others = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[2.0, 9.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert bpr(users, liked, others).tolist() == pytest.approx([NEAR, np.log(2)])


@pytest.mark.parametrize(
    ("references", "weights", "value"),
    [
        (CROSS, None, NEAR),
        (3 * CROSS, None, NEAR),  # lengths don't matter
        (CROSS.flip(0), None, FAR),
        (CROSS, [2.0, 0.0], NEAR),
        (torch.tensor([[1.0, 0.0], [1.0, 0.0]]), [1.0, 3.0], 2 * np.log(2)),
    ],
)
def test_info_nce_of_two_crossed_vectors(references, weights, value):
    weights = None if weights is None else torch.tensor(weights)
    assert float(info_nce(CROSS, references, 0.5, weights)) == pytest.approx(value, rel=1e-6)


def test_info_nce_of_nothing_is_zero_and_has_a_gradient():
    vectors = torch.zeros(0, 2, requires_grad=True)
    value = info_nce(vectors, torch.zeros(0, 2), 0.5)
    value.backward()
    assert float(value.detach()) == 0


def test_shares_are_a_softmax_of_cosines():
    found = shares(torch.tensor([[4.0, 0.0]]), CROSS, 0.5)
    assert found[0].tolist() == pytest.approx([0.880797, 0.119203], abs=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "bits"),
    [([1.0, 0.0], [0.0, 1.0], 1.0), ([0.3, 0.7], [0.3, 0.7], 0.0), ([0.5, 0.5], [1.0, 0.0], 0.311278124)],
)
def test_jensen_shannon_in_bits(p, q, bits):
    assert jensen_shannon(np.array([p]), np.array([q]))[0] == pytest.approx(bits)
    assert jensen_shannon(np.array([q]), np.array([p]))[0] == pytest.approx(bits)


@pytest.mark.parametrize(
    ("share", "held"),
    [
        (0.5, [0, 0.9, 0.5, 0]),
        (0.3, [0, 0.9, 0.5, 0]),
        (0.25, [0, 0.9, 0, 0]),
        (0.0, [0] * 4),
        (1.0, [0.1, 0.9, 0.5, 0.3]),
    ],
)
def test_top_share_keeps_the_largest(share, held):
    assert top_share(np.array([0.1, 0.9, 0.5, 0.3]), share).tolist() == held


def test_the_loss_of_pairs_weighs_and_shrinks():
    model = FactorModel(1, 2, 2, 0.1)
    with torch.no_grad():
        model.users[:] = torch.tensor([[1.0, 0.0]])
        model.items[:] = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    one = np.array([0])
    batch = PairBatch(one, one, np.array([1]), np.array([3.0], np.float32), l2=0.5)
    assert float(batch.loss(model, 1.0).detach()) == pytest.approx(3 * (NEAR + 0.25 * (1 + 4)), rel=1e-6)
    assert batch.mass == 3
