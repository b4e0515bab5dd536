"""The models: the graph's averages, and what SASRec reads."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from worlds import block_of

from peso_cli.data.examples import examples
from peso_cli.errors import InputError
from peso_cli.training.sequences import shared
from peso_cli.two_tower.batches import Histories, SequenceBatch
from peso_cli.two_tower.graph import adjacency
from peso_cli.two_tower.models import FactorModel, SequenceModel
from peso_cli.two_tower.parts import Interactions
from peso_cli.two_tower.roster import Roster
from peso_cli.two_tower.settings import SasRec

CPU = torch.device("cpu")


def roster_of(users, items):
    return Roster({f"u{n}": n for n in range(users)}, np.arange(items), np.arange(items))


def matrix_of(users, items, pairs):
    rows = np.array(pairs).T
    return roster_of(users, items).matrix(Interactions(rows[0], rows[1], np.ones(len(pairs), np.float32)))


def lightgcn(users, items, pairs, layers):
    return FactorModel(len(users), len(items), 1, 0.1, adjacency(matrix_of(len(users), len(items), pairs), CPU), layers)


@pytest.mark.parametrize(
    ("pairs", "layers", "users", "items"),
    [
        ([(0, 0)], 1, [2.0], [2.0, 2.5]),
        ([(0, 0), (0, 0)], 1, [2.0], [2.0, 2.5]),  # once is an edge
        ([(0, 0), (0, 1)], 1, [(1 + 8 / 2**0.5) / 2], [(3 + 0.5**0.5) / 2, (5 + 0.5**0.5) / 2]),
        ([(0, 0)], 2, [5 / 3], [7 / 3, 5 / 3]),
    ],
)
def test_lightgcn_averages_the_layers_of_the_normalised_graph(pairs, layers, users, items):
    model = lightgcn([1.0], [3.0, 5.0], pairs, layers)
    with torch.no_grad():
        model.users[:], model.items[:] = torch.tensor([[1.0]]), torch.tensor([[3.0], [5.0]])
    towers = model.towers()
    assert towers.users.flatten().tolist() == pytest.approx(users)
    assert towers.items.flatten().tolist() == pytest.approx(items)


def test_the_gradient_of_the_graph_is_that_of_the_same_matrix_written_out():
    model = lightgcn([0] * 3, [0] * 4, [(0, 0), (0, 1), (1, 1), (2, 3)], 3)
    dense = model._graph.to_dense()
    both = torch.cat([model.users, model.items]).detach().requires_grad_()
    layers = [both]
    for _ in range(3):
        layers.append(dense @ layers[-1])
    towers = model.towers()
    weights = torch.arange(7.0)[:, None]
    (torch.cat([towers.users, towers.items]) * weights).sum().backward()
    (torch.stack(layers).mean(dim=0) * weights).sum().backward()
    assert torch.allclose(torch.cat([model.users.grad, model.items.grad]), both.grad, atol=1e-6)


def test_a_user_without_a_row_is_the_mean_of_the_history():
    model = FactorModel(1, 3, 2, 0.1)
    towers = model.towers()
    found = model.queries(towers, torch.tensor([-1, 0, -1]), torch.tensor([[0, 2], [1, -1], [-1, -1]]))
    assert torch.allclose(found[0], (model.items[0] + model.items[2]) / 2)
    assert torch.equal(found[1], model.users[0])
    assert found[2].tolist() == [0, 0]


def settings(**changes):
    fields = {"name": "sasrec", "width": 8, "initial_std": 0.5, "batch": 2, "seen": "left_out", "source": "sasrec"}
    shape = {"layers": 2, "heads": 2, "feed_forward": 16, "dropout": 0.0, "negatives": None}
    return SasRec(**{**fields, **shape, **changes})


@pytest.fixture
def sasrec():
    torch.manual_seed(0)
    return SequenceModel(6, 4, settings()).eval()


def test_sasrec_reads_nothing_of_what_comes_later(sasrec):
    one, other = sasrec.states(torch.tensor([[0, 1, 2, 3], [0, 1, 5, -1]]))
    assert torch.allclose(one[:3], other[:3], atol=1e-6)
    assert not torch.allclose(one[3], other[3], atol=1e-3)
    alone = sasrec.queries(sasrec.towers(), torch.tensor([-1]), torch.tensor([[0, 1]]))
    assert torch.allclose(alone[0], one[2], atol=1e-6)


def test_sasrec_tells_the_order_of_items(sasrec):
    one, other = sasrec.queries(sasrec.towers(), torch.tensor([-1, -1]), torch.tensor([[0, 1, 2], [1, 0, 2]]))
    assert not torch.allclose(one, other, atol=1e-3)


def test_sasrec_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(InputError, match=r"backbone.width=8: must be a multiple of backbone.heads=3"):
        SequenceModel(6, 4, settings(heads=3))


def test_a_sequence_answers_each_example_as_the_example_alone_would(sasrec):
    block = block_of({"a": ([5], [0, 1, 2, 3, 4, 1]), "b": ([], [2, 3, 0, 1])})
    found = examples(block, "train", 4)
    source = Histories((shared(found),), roster_of(2, 6), 8, None)
    (members,) = source.plan((0,))
    batch = source.batch(members)
    expected = 0.0
    for i in range(len(found)):
        history = torch.tensor(found.history(i).astype(np.int64))[None]
        state = sasrec.queries(sasrec.towers(), torch.tensor([-1]), history)
        expected += float(
            F.cross_entropy(state @ sasrec.items.T / 0.8, torch.tensor([int(found.target_items[i])])).detach()
        )
    assert len(batch.labels) == len(found) == batch.mass
    assert float(batch.loss(sasrec, 0.8).detach()) == pytest.approx(expected, rel=1e-5)


def test_drawn_candidates_that_are_all_items_make_the_full_cross_entropy(sasrec):
    def loss(candidates):
        weights = np.array([0.5, 2.0], np.float32)
        batch = SequenceBatch(np.array([[0, 1]]), np.array([1, 2]), np.array([1, 4]), weights, candidates)
        sasrec.zero_grad()
        found = batch.loss(sasrec, 0.8)
        found.backward()
        return float(found.detach()), [p.grad.clone() for p in sasrec.parameters()]

    (one, gradients), (other, others) = loss(np.arange(6)), loss(None)
    assert one == pytest.approx(other, rel=1e-6)
    for own, reference in zip(others, gradients, strict=True):
        assert torch.allclose(own, reference, rtol=1e-4, atol=1e-6)
    assert loss(np.array([0, 2]))[0] < one
