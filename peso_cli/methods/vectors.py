"""The numbers of LoRA factors as vectors: all of them in one block of memory, so that a step costs a few operations.

A block consists of rows of `WIDTH` numbers. A vector takes whole rows, the last of them filled up with zeros, so that a
sum over each vector is a sum over each row and then one over a few thousand numbers, whatever the vectors' lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from peso_cli.methods.parts import Factors
from peso_cli.methods.settings import Group

WIDTH = 256
"""Numbers in a row."""

Grouping = Group | Literal["rank", "a"]
"""`rank`: a row of A and the column of B that it works with; `a`: each A by itself, B not at all."""

Place = tuple[torch.Size, tuple[int, int], int]
"""A factor's shape, and its strides and offset within the block."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Where the numbers of factors lie as vectors.

    Attributes:
        places: of each factor, in the order of `members_of`.
        of_row: (rows,) the vector that a row belongs to.
        lengths: (vectors,) their numbers of entries, in float64.
        filled: (rows, WIDTH) whether an entry belongs to a factor.
    """

    places: Sequence[Place]
    of_row: Tensor
    lengths: Tensor
    filled: Tensor

    def block(self, dtype: torch.dtype) -> Tensor:
        """Return a new (rows, WIDTH) block of zeros."""
        return torch.zeros(self.filled.shape, dtype=dtype, device=self.of_row.device)

    def factors(self, block: Tensor) -> list[Tensor]:
        """Return the parts of a block that are the factors, in their shapes; they share its memory."""
        return [block.as_strided(*place) for place in self.places]

    def read(self, factors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """Return a new block of the factors' present values."""
        block = self.block(dtype)
        torch._foreach_copy_(self.factors(block), [factor.detach() for factor in factors])
        return block

    def sum(self, block: Tensor) -> Tensor:
        """Return the (vectors,) sums, in float64."""
        return torch.zeros_like(self.lengths).index_add_(0, self.of_row, block.sum(1).double())

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """Return (vectors,) values as a (rows, 1) column in the type of a block."""
        return values.to(like.dtype)[self.of_row, None]

    def log_softmax(self, block: Tensor) -> Tensor:
        """Return the logarithms of each vector's softmax, in float64; minus infinity outside the vectors."""
        exact = block.double().masked_fill(~self.filled, -torch.inf)
        return exact - self.spread(self.log_sum_exp(exact), exact)

    def log_sum_exp(self, block: Tensor) -> Tensor:
        """Return the (vectors,) logarithms of the sums of exp, of a block that is minus infinity outside of them."""
        highest = torch.full_like(self.lengths, -torch.inf).scatter_reduce_(0, self.of_row, block.amax(1), "amax")
        return highest + self.sum((block - self.spread(highest, block)).exp_()).log()

    def stacks(self) -> Sequence[tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """Return, for each length, which vectors have it and what takes these out of a block, as (n, length)."""
        found = []
        for length in sorted({int(length) for length in self.lengths}):
            which = (self.lengths == length).nonzero()[:, 0]
            rows = torch.isin(self.of_row, which).nonzero()[:, 0]
            found.append((which, partial(_taken, rows, len(which), length)))
        return found


def _taken(rows: Tensor, count: int, length: int, block: Tensor) -> Tensor:
    return block[rows].view(count, -1)[:, :length]


def members_of(factors: Factors, group: Grouping) -> list[Tensor]:
    """Return the factors that vectors are made of: A, B of the first module, A, B of the second, and so on."""
    return [factor for pair in factors.values() for factor in (pair[:1] if group == "a" else pair)]


def vectors_of(factors: Factors, group: Grouping) -> Vectors:
    """Lay out factors, those of a vector one behind the other.

    Args:
        factors: A and B by module.
        group: what one vector is.
    """
    if group == "rank":
        sizes, places = _by_rank(factors)
    else:
        sizes, places = _by_group(factors, group)
    device = next(iter(factors.values()))[0].device
    lengths = torch.tensor(sizes)
    rows = -(-lengths // WIDTH)
    last = torch.arange(int(rows.sum())).view(-1, 1) - (rows.cumsum(0) - rows).repeat_interleave(rows)[:, None]
    filled = last * WIDTH + torch.arange(WIDTH) < lengths.repeat_interleave(rows)[:, None]
    of_row = torch.arange(len(sizes)).repeat_interleave(rows)
    return Vectors(places, of_row.to(device), lengths.double().to(device), filled.to(device))


def _by_group(factors: Factors, group: Group | Literal["a"]) -> tuple[list[int], list[Place]]:
    sizes: dict[str, int] = {}
    inside = []
    for module, pair in factors.items():
        for letter, factor in zip("AB", members_of({module: pair}, group), strict=False):
            key = {"module": module, "layer": _layer(module)}.get(group, f"{module}.{letter}")
            inside.append((key, sizes.get(key, 0), factor.shape))
            sizes[key] = sizes.get(key, 0) + factor.numel()
    starts, end = {}, 0
    for key, size in sizes.items():
        starts[key], end = end, end + _whole_rows(size)
    return list(sizes.values()), [(shape, (shape[1], 1), starts[key] + at) for key, at, shape in inside]


def _by_rank(factors: Factors) -> tuple[list[int], list[Place]]:
    sizes: list[int] = []
    places: list[Place] = []
    start = 0
    for a, b in factors.values():
        rank, size = len(a), a.shape[1] + len(b)
        step = _whole_rows(size)
        places += [(a.shape, (step, 1), start), (b.shape, (1, step), start + a.shape[1])]
        sizes += [size] * rank
        start += rank * step
    return sizes, places


def _whole_rows(size: int) -> int:
    return -(-size // WIDTH) * WIDTH


def _layer(module: str) -> str:
    """Return the name of the decoder layer around a module, which ends in a number; outside of any, the module's."""
    parts = module.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else module
