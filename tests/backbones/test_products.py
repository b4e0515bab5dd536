import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from peso_cli.backbones import products
from peso_cli.backbones.products import LEAST, OPERATIONS, FastProducts, filled_down, filled_up, linear, product

torch.manual_seed(1)

needs_onednn = pytest.mark.skipif(products._ONEDNN is None, reason="torch comes without oneDNN here")


def laid_out(rows, columns, how):
    """A matrix of random numbers that lies in memory in one of several ways."""
    if how == "by rows":
        return torch.randn(rows, columns)
    if how == "by columns":
        return torch.randn(columns, rows).mT
    if how == "rows of a wider one":
        return torch.randn(rows, columns + 7)[:, 3 : 3 + columns]
    return torch.randn(columns, rows + 7)[:, 3 : 3 + rows].mT


layouts = st.sampled_from(["by rows", "by columns", "rows of a wider one", "columns of a wider one"])
sizes = st.integers(1, 40)


@settings(deadline=None)
@given(sizes, sizes, sizes, layouts, layouts)
def test_product_is_that_of_float64_however_matrices_lie_in_memory(n, m, k, of_left, of_right):
    left, right = laid_out(n, k, of_left), laid_out(m, k, of_right)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_SMALL", 0)
        found = product(left, right)
    torch.testing.assert_close(found, (left.double() @ right.double().mT).float(), rtol=1e-5, atol=1e-5)


def gradients_of(make, states, weight, bias):
    inputs = [x.detach().clone().requires_grad_() for x in (states, weight, bias)]
    (make(*inputs) ** 2).sum().backward()
    return [x.grad for x in inputs]


@pytest.mark.parametrize("shape", [(300,), (1, 300), (3, 100)])
def test_linear_has_values_and_gradients_of_torchs_own(shape):
    states, weight, bias = torch.randn(*shape, 64), torch.randn(96, 64), torch.randn(96)
    torch.testing.assert_close(linear(states, weight, bias), functional.linear(states, weight, bias))
    expected = gradients_of(functional.linear, states, weight, bias)
    for found, wanted in zip(gradients_of(linear, states, weight, bias), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_what_does_not_train_gets_no_gradient():
    states, weight = torch.randn(300, 64, requires_grad=True), torch.randn(96, 64)
    linear(states, weight).sum().backward()
    assert states.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize("shapes", [((0, 64), (96, 64)), ((5, 4), (3, 4)), ((64,), (96, 64))])
def test_small_and_empty_ones_are_torchs_own(shapes):
    states, weight = (torch.randn(*shape) for shape in shapes)
    assert linear(states, weight).equal(functional.linear(states, weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_numbers_than_float32_are_torchs_own(dtype):
    states, weight = torch.randn(300, 64, dtype=dtype), torch.randn(96, 64, dtype=dtype)
    assert linear(states, weight).equal(functional.linear(states, weight))
    assert product(states, weight).equal(states @ weight.mT)


def test_without_onednn_all_is_torchs_own(monkeypatch):
    monkeypatch.setattr(products, "_ONEDNN", None)
    states, weight = torch.randn(300, 64), torch.randn(96, 64)
    assert linear(states, weight).equal(functional.linear(states, weight))
    assert product(states, weight).equal(states @ weight.mT)


@given(st.integers(1, 100_000))
def test_rows_are_filled_up_by_at_most_an_eighth_of_what_is_not_few(rows):
    filled = filled_up(rows)
    assert rows <= filled < rows + max(LEAST, rows / 8 + 1)
    assert filled_up(filled) == filled
    down = filled_down(rows)
    assert 1 <= down <= rows
    assert rows <= LEAST or filled_up(down) == down > rows / 1.126 - LEAST


@needs_onednn
def test_batches_of_any_size_make_few_programs():
    weight = torch.randn(96, 64)
    with FlopCounterMode(display=False, custom_mapping=OPERATIONS) as found:
        for rows in range(1025, 1153):
            assert product(torch.randn(rows, 64), weight).shape == (rows, 96)
    assert found.get_total_flops() == 128 * 2 * 1152 * 64 * 96


@needs_onednn
def test_layers_use_it_within_and_torchs_own_without():
    layer, states = nn.Linear(64, 96), torch.randn(320, 64)
    other = copy.deepcopy(layer)
    with FlopCounterMode(display=False, custom_mapping=OPERATIONS) as within, FastProducts():
        found = layer(states)
    with FlopCounterMode(display=False) as without:
        expected = other(states)
    assert [str(op) for op in within.get_flop_counts()["Global"]] == ["mkldnn._linear_pointwise"]
    assert [str(op) for op in without.get_flop_counts()["Global"]] == ["aten.addmm"]
    assert within.get_total_flops() == without.get_total_flops() == 2 * 320 * 64 * 96
    torch.testing.assert_close(found, expected)
