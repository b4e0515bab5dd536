import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.inspection.support import Metric, shares, spearman, strongest, summary


def idle(done, most):
    """Nobody looks at the progress."""


def positive(size, seed, rank=None):
    """A symmetric matrix of fast falling eigenvalues, some of them zero if `rank` is given."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    values = 0.7 ** torch.arange(size, dtype=torch.float64) * 10
    values[size if rank is None else rank :] = 0
    return q @ torch.diag(values) @ q.mT


def start_of(size, seed=5):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 6))
def test_directions_are_the_eigenvectors_of_a_dense_matrix(seed, count):
    matrix = positive(25, seed)
    found = strongest(lambda v: matrix @ v, start_of(25), count, 1e-10, 25, idle)
    values, vectors = (x.flip(-1) for x in torch.linalg.eigh(matrix))
    assert found.support.tolist() == pytest.approx(values[:count].tolist(), rel=1e-9)
    assert (found.vectors @ vectors[:, :count]).abs().diagonal().tolist() == pytest.approx([1.0] * count, rel=1e-8)


def test_directions_without_support_are_left_out():
    matrix = positive(25, 3, rank=4)
    found = strongest(lambda v: matrix @ v, start_of(25), 8, 1e-10, 64, idle)
    assert len(found.support) == 4
    assert found.typical == pytest.approx(float(start_of(25) @ matrix @ start_of(25) / start_of(25).square().sum()))
    assert found.products <= 6


def test_no_support_at_all_is_no_direction():
    found = strongest(lambda v: 0 * v, start_of(25), 8, 1e-10, 64, idle)
    assert len(found.support) == 0
    assert shares(found, start_of(25), start_of(25), 1.0) == []


def softmax_metric(size, seed):
    """Two vectors of unequal length."""
    q = torch.cat([part.softmax(0) for part in torch.split(start_of(size, seed), [size // 3, size - size // 3])])
    return Metric(q.sqrt(), q.sqrt(), (torch.arange(size) >= size // 3).long())


@pytest.mark.parametrize("kind", ["plain", "softmax"])
@pytest.mark.parametrize("pull", [0.0, 0.3, 20.0])
def test_the_closed_form_of_a_proximal_step_follows_just_the_predicted_share(kind, pull):
    size = 24
    metric = Metric(torch.ones(size).double()) if kind == "plain" else softmax_metric(size, 2)
    bent, gradient = positive(size, 8), start_of(size, 3)
    # In coordinates: the least of g x + x G x / 2 + pull |x|^2 / 2 within what the metric sees.
    columns = [metric.curvature(lambda v: bent @ v)(x) for x in torch.eye(size).double()]
    whole = torch.stack(columns, dim=1) + pull * torch.eye(size)
    x = -torch.linalg.pinv(whole, rtol=1e-11, hermitian=True) @ metric.gradient(gradient)
    displacement = metric.seen(x) / metric.root
    start = metric.seen(start_of(size))
    found = strongest(metric.curvature(lambda v: bent @ v), start, 5, 1e-11, size, idle)
    rows = shares(found, metric.displacement(displacement), metric.gradient(gradient), pull)
    for row in rows:
        assert row["followed"] == pytest.approx(row["predicted"], abs=1e-6)
    together = summary(rows, metric.displacement(displacement), metric.dimensions)
    assert together["followed"] == pytest.approx(together["predicted"], abs=1e-6)
    if pull:
        assert together["spearman"] == pytest.approx(1.0)


def test_coordinates_keep_the_metrics_lengths_and_gradients_their_products():
    metric, d, g = softmax_metric(24, 2), start_of(24, 6), start_of(24, 7)
    q = metric.root.square()
    blocks = torch.block_diag(*(torch.diag(p) - torch.outer(p, p) for p in (q[:8], q[8:])))
    assert float(metric.displacement(d).square().sum()) == pytest.approx(float(d @ blocks @ d))
    seen = metric.displacement(d) / metric.root
    assert float(metric.gradient(g) @ metric.displacement(d)) == pytest.approx(float(g @ seen))
    assert float(metric.displacement(torch.ones(24).double()).norm()) == pytest.approx(0, abs=1e-12)
    assert metric.dimensions == 22


def test_movement_within_the_directions_is_told_from_that_of_random_ones():
    matrix = torch.diag(torch.tensor([4.0, 3.0, 0.1, 0.1, 0.1, 0.1]).double())
    found = strongest(lambda v: matrix @ v, start_of(6), 2, 1e-12, 6, idle)
    moved = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0, 0.0]).double()
    together = summary(shares(found, moved, moved, None), moved, 6)
    assert together["share_of_movement"] == pytest.approx(10 / 12)
    assert together["moved_per_direction"] == pytest.approx(5**0.5)
    assert together["moved_per_random_direction"] == pytest.approx(2**0.5)
    assert together["predicted"] is None


def test_rank_correlation():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 500]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 2, 4], [1, 2, 2, 4]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    assert spearman([1, 2], [3, 3]) is None
    assert spearman([1], [1]) is None
    assert np.isfinite(spearman([1, 2, 2], [3, 1, 2]))
