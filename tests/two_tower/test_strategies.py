"""The penalties of the two-tower strategies, against values worked out by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_two_tower_losses import FAR, NEAR

from peso_cli.errors import InputError
from peso_cli.methods.parts import Step
from peso_cli.two_tower.contrastive import Contrastive
from peso_cli.two_tower.contrastive_piw import ContrastivePiw
from peso_cli.two_tower.holding import user_shifts
from peso_cli.two_tower.models import FactorModel
from peso_cli.two_tower.parts import Interactions, StrategyStart, Towers
from peso_cli.two_tower.pisa import Pisa

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def model_of(users, items):
    model = FactorModel(len(users), len(items), 2, 0.1)
    with torch.no_grad():
        model.users[:], model.items[:] = torch.tensor(users), torch.tensor(items)
    return model


def start_of(model, users_before, items_before, forward=None, pairs=((0, 0), (1, 1))):
    """A stage in which users have had items, as (user, item)."""
    users, items = np.array(pairs).T
    before = Towers(None if users_before is None else torch.tensor(users_before), torch.tensor(items_before))
    trained = Interactions(users, items, np.ones(len(users), np.float32))
    return StrategyStart(model, before, trained, 1, lambda: forward)


def value_of(penalty, users, items):
    """The penalty of a step over some users and items, as a tensor."""
    return penalty.value(Step([SimpleNamespace(users=np.array(users), items=np.array(items))]))


def test_contrastive_adds_the_terms_of_users_and_items():
    model = model_of([EAST, NORTH], [EAST, NORTH])
    penalty = Contrastive(3.0, 0.5).begin(start_of(model, [EAST, NORTH], [EAST, EAST]))
    assert float(value_of(penalty, [0, 1, 1], [1, 0]).detach()) == pytest.approx(3 * (NEAR + np.log(2)))


def test_contrastive_holds_only_what_the_stage_before_knew():
    model = model_of([EAST, NORTH, EAST], [EAST, NORTH, EAST])
    penalty = Contrastive(1.0, 0.5).begin(start_of(model, [EAST, NORTH], [EAST, NORTH]))
    assert float(value_of(penalty, [0, 1, 2], [0, 1, 2]).detach()) == pytest.approx(2 * NEAR)
    nobody = value_of(penalty, [2], [2])
    nobody.backward()
    assert float(nobody.detach()) == 0
    assert not model.users.grad.any()


@pytest.mark.parametrize(
    "strategy", [Contrastive(0.0, 0.5), ContrastivePiw(0.0, 0.5, 2, 4), Pisa(0.0, 0.5, 2, 0.5, 0.5)]
)
def test_without_strength_there_is_no_penalty(strategy):
    assert strategy.begin(start_of(model_of([EAST], [EAST]), [EAST], [EAST])) is None


@pytest.mark.parametrize(
    "strategy", [Contrastive(1.0, 0.5), ContrastivePiw(1.0, 0.5, 2, 4), Pisa(1.0, 0.5, 2, 0.5, 0.5)]
)
def test_a_model_without_vectors_of_users_is_refused(strategy):
    with pytest.raises(InputError, match="the backbone has no vectors of users"):
        strategy.begin(start_of(model_of([EAST], [EAST]), None, [EAST]))


@pytest.fixture
def imitation():
    """User 0 stayed east; user 1 lay north and now has what lies east. The network adds up what a user gained."""
    model = model_of([EAST, EAST], [EAST, NORTH])
    start = start_of(model, [EAST, NORTH], [EAST, NORTH], pairs=((0, 0), (1, 0)))
    penalty = ContrastivePiw(1.0, 0.5, 2, 2).begin(start)
    network = model.strategy["imitation"]
    with torch.no_grad():
        network[0].weight[:], network[0].bias[:] = torch.eye(2), torch.zeros(2)
        network[2].weight[:], network[2].bias[:] = torch.ones(1, 2), torch.zeros(1)
    return SimpleNamespace(model=model, penalty=penalty, network=network)


def test_imitation_weights_follow_from_the_shift_of_shares(imitation):
    gained = 0.880797 - 0.119203  # softmax(2, 0): user 1's share of the eastern cluster now, and before
    weights = 2 * np.exp([0, gained]) / np.exp([0, gained]).sum()
    # User 1's own reference lies across, user 0's does not; the items stayed.
    expected = (weights * [NEAR, FAR]).sum() / 2 + NEAR
    assert float(value_of(imitation.penalty, [0, 1], [0, 1]).detach()) == pytest.approx(expected, rel=1e-5)


def test_equal_imitation_weights_are_plain_contrastive(imitation):
    with torch.no_grad():
        imitation.network[2].weight.zero_()
    plain = Contrastive(1.0, 0.5).begin(start_of(imitation.model, [EAST, NORTH], [EAST, NORTH]))
    expected = value_of(plain, [0, 1], [0, 1]).detach()
    assert float(value_of(imitation.penalty, [0, 1], [0, 1]).detach()) == pytest.approx(float(expected))


def test_imitation_weights_are_learnt(imitation):
    value_of(imitation.penalty, [0, 1], [0, 1]).backward()
    assert imitation.network[2].weight.grad.abs().sum() > 0
    assert imitation.model.users.grad.abs().sum() > 0


def test_shifts_reach_from_zero_for_who_stayed_to_one_for_who_moved_most():
    items = torch.tensor([EAST, NORTH])
    previous = Towers(torch.tensor([EAST, EAST, EAST]), items)
    forward = Towers(torch.tensor([EAST, NORTH, [1.0, 1.0]]), items)
    shift = user_shifts(previous, forward, np.arange(3), 2, 0.5, 1)
    assert shift[:2].tolist() == pytest.approx([0, 1])
    assert 0 < shift[2] < 1
    assert user_shifts(previous, previous, np.arange(3), 2, 0.5, 1).tolist() == [0, 0, 0]


def test_shifts_follow_the_items_of_a_cluster_into_the_forward_model():
    previous = Towers(torch.tensor([EAST, EAST]), torch.tensor([EAST, NORTH]))
    turned = Towers(torch.tensor([NORTH, EAST]), torch.tensor([NORTH, EAST]))
    # All turned together with user 0, who stays with the same items; user 1 stayed and is with others now.
    assert user_shifts(previous, turned, np.arange(2), 2, 0.5, 1).tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize(
    ("kept", "value"),
    [((0.5, 0.5), (NEAR + np.log(2)) / 2), ((1.0, 0.0), NEAR / 2), ((0.0, 1.0), np.log(2) / 2), ((0.0, 0.0), 0.0)],
)
def test_pisa_draws_who_moved_forward_and_who_stayed_back(kept, value):
    model = model_of([EAST, NORTH], [EAST, NORTH])
    forward = Towers(torch.tensor([EAST, NORTH]), torch.tensor([EAST, NORTH]))
    penalty = Pisa(2.0, 0.5, 2, *kept).begin(start_of(model, [EAST, EAST], [EAST, NORTH], forward))
    # User 1 moved (p = 1, s = 0): near its forward vector. User 0 stayed (p = 0, s = 1): the references lie together.
    assert float(value_of(penalty, [0, 1], [0]).detach()) == pytest.approx(2 * value, abs=1e-6)
