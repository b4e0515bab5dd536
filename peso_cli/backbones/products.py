"""Products of matrices on CPUs, by the faster of the two libraries that torch carries.

torch hands products in float32 to MKL, which takes wide registers on processors of one maker only; oneDNN takes them on
all that have them. On an AMD EPYC with AVX-512 it is 2.3 times faster at a backbone's layers. Both round in float32;
they add up in different orders.

oneDNN writes a program for every size of matrices, which takes it as long as a product and half a megabyte. Batches
have ever other numbers of tokens: they are filled up with zeros to one of a few.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SMALL = 1 << 20
"""Multiplications under which MKL answers before oneDNN has begun."""

LEAST = 32
"""Rows that the fewest are filled up to."""

_ONEDNN: Callable[..., Tensor] | None = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    else None
)


def _operations(left: Sequence[int], right: Sequence[int], *others: Any, **more: Any) -> int:
    return 2 * left[0] * left[1] * right[0]


OPERATIONS = {} if _ONEDNN is None else {_ONEDNN: _operations}
"""What torch's counter of floating-point operations has to be told of these products."""


def filled_up(rows: int) -> int:
    """Return to how many rows so many are filled up: eight numbers between a power of two and the next one."""
    step = max(LEAST, (1 << (rows - 1).bit_length() >> 1) >> 3)
    return -(-rows // step) * step


def filled_down(rows: int) -> int:
    """Return the most rows, at least one, that are no more than so many and need no filling up, or are very few."""
    return next((n for n in range(rows, LEAST, -1) if filled_up(n) == n), max(rows, 1) if rows < LEAST else LEAST)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the (n, m) product left right^T of (n, k) and (m, k) matrices; no gradient goes through it.

    Tokens are taken to be what rows of memory of `left` are for; their number may differ from call to call.
    """
    if not _worth_it(left, right):
        return left @ right.mT
    if left.stride(-1) == 1:
        return _by_onednn(with_rows(left), right)[: len(left)]
    left, right = with_rows(left.mT).mT, with_rows(right.mT).mT
    # Of two matrices that lie the other way round oneDNN rearranges the second, which had better be the larger.
    return _by_onednn(right, left).mT if len(left) > len(right) else _by_onednn(left, right)


def with_rows(values: Tensor) -> Tensor:
    """Return an (n, ...) tensor filled up with rows of zeros."""
    more = filled_up(len(values)) - len(values)
    return functional.pad(values, (0, 0) * (values.dim() - 1) + (0, more)) if more else values


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what `torch.nn.functional.linear` returns; gradients go through it.

    Args:
        states: (..., in).
        weight: (out, in).
        bias: (out,).
    """
    rows = states.reshape(-1, states.shape[-1])
    if not _worth_it(rows, weight):
        return functional.linear(states, weight, bias)
    if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
        apply: Any = _Linear.apply
        found: Tensor = apply(rows, weight)
    else:
        found = product(rows, weight)
    found = found.view(*states.shape[:-1], len(weight))
    return found if bias is None else found + bias


class FastProducts(TorchFunctionMode):
    """Within it, linear layers work by `linear`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or what stands in for it."""
        return (linear if func is functional.linear else func)(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """states weight^T with its gradients."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        filled = with_rows(states)
        ctx.save_for_backward(filled, weight)
        return product(filled, weight)[: len(states)]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        of_states, of_weight = ctx.needs_input_grad
        filled = with_rows(gradient)
        return (
            product(filled, weight.mT)[: len(gradient)] if of_states else None,
            product(filled.mT, states.mT) if of_weight else None,
        )


def _worth_it(left: Tensor, right: Tensor) -> bool:
    return (
        _ONEDNN is not None
        and left.device.type == "cpu"
        and left.dtype == right.dtype == torch.float32
        and left.numel() * len(right) >= _SMALL
    )


def _by_onednn(left: Tensor, right: Tensor) -> Tensor:
    assert _ONEDNN is not None
    return _ONEDNN(left, _dense(right), None, "none", [], "")


def _dense(matrix: Tensor) -> Tensor:
    """Return a matrix without gaps between its rows or columns, over which oneDNN would go number by number."""
    if matrix.stride(0) == 1:
        return matrix.mT.contiguous().mT
    return matrix.contiguous()
