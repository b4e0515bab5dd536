"""Which directions the data speak for, and what share of their demand an adapter followed along each.

Near the state in which a stage begins, its loss is g^T d + d^T G d / 2 for a displacement d, and a proximal term is
lambda d^T M d / 2. Along a direction u with G u = rho M u and u^T M u = 1, the loss alone asks for the step
-(u^T g) / rho, and both together for the share rho / (rho + lambda) of it: PESO's Proposition 1 (arXiv 2510.25093).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""A vector to its product with a symmetric matrix."""

_NOTHING = 1e-9
"""Support, as a share of the strongest direction's, below which a direction has none."""


@dataclass(frozen=True, eq=False)
class Metric:
    """M = diag(root^2), less what of it acts on `free`: in coordinates x = root d, a projector.

    Attributes:
        root: (n,) positive numbers.
        free: (n,) a unit vector of coordinates for each vector that the penalty takes a softmax of, side by side:
            what costs nothing. None where all costs.
        vector: (n,) which of them a number belongs to.
    """

    root: Tensor
    free: Tensor | None = None
    vector: Tensor | None = None

    @property
    def dimensions(self) -> int:
        """How many directions M sees."""
        return len(self.root) - (0 if self.vector is None else int(self.vector.max()) + 1)

    def seen(self, x: Tensor) -> Tensor:
        """Take out of coordinates what costs nothing."""
        if self.free is None or self.vector is None:
            return x
        along = x.new_zeros(int(self.vector.max()) + 1).index_add_(0, self.vector, x * self.free)
        return x - self.free * along[self.vector]

    def displacement(self, d: Tensor) -> Tensor:
        """Return the coordinates of a displacement of the factors; their squares add up to d^T M d."""
        return self.seen(self.root * d)

    def gradient(self, g: Tensor) -> Tensor:
        """Return a gradient by the factors as one by the coordinates."""
        return self.seen(g / self.root)

    def curvature(self, product: Product) -> Product:
        """Return the products of G, a matrix over the factors, as those over the coordinates."""
        return lambda x: self.gradient(product(self.seen(x) / self.root))


@dataclass(frozen=True, eq=False)
class Directions:
    """The directions of strongest support.

    Attributes:
        support: (k,) rho, descending, in float64.
        vectors: (k, n) unit vectors, orthogonal to one another.
        residuals: (k,) norms of K u - rho u: how exact they are.
        typical: support of the random vector that the search started from, in expectation the mean over all directions.
        products: how many products it took.
    """

    support: Tensor
    vectors: Tensor
    residuals: Tensor
    typical: float
    products: int


class _Krylov:
    """An orthonormal basis that grows by one product at a time, and the matrix seen from within it (Lanczos 1950)."""

    def __init__(self, start: Tensor, most: int) -> None:
        self.basis = start.new_empty(most + 1, len(start))
        self.basis[0] = start / start.norm()
        self.diagonal: list[float] = []
        self.beside: list[float] = []

    def grow(self, product: Product) -> float:
        """Add a vector; return the norm of what the product had outside the basis, 0 where there is nothing more."""
        number = len(self.diagonal)
        new, known = product(self.basis[number]), self.basis[: number + 1]
        self.diagonal.append(float(new @ self.basis[number]))
        whole = float(new.norm())
        for _ in range(2):  # once isn't enough to stay orthogonal to all
            new = new - known.mT @ (known @ new)
        left = float(new.norm())
        if left <= 10 * torch.finfo(new.dtype).eps * max(whole, *map(abs, self.diagonal)):
            return 0.0
        self.basis[number + 1] = new / left
        self.beside.append(left)
        return left

    def solve(self) -> tuple[Tensor, Tensor]:
        """Return eigenvalues, descending, and the matrix of eigenvectors of the small matrix."""
        beside = torch.tensor(self.beside[: len(self.diagonal) - 1], dtype=torch.float64)
        small = torch.diag(torch.tensor(self.diagonal, dtype=torch.float64))
        values, vectors = torch.linalg.eigh(small + torch.diag(beside, 1) + torch.diag(beside, -1))
        return values.flip(0), vectors.flip(1)


def strongest(
    product: Product, start: Tensor, count: int, tolerance: float, most: int, tick: Callable[[int, int], None]
) -> Directions:
    """Return the `count` eigenvectors of largest eigenvalues of a matrix known by its products; fewer if it has fewer.

    Args:
        product: of a symmetric matrix without negative eigenvalues.
        start: (n,) a random vector within the space that matters.
        count: how many.
        tolerance: residual, as a share of the direction's own eigenvalue, that is exact enough.
        most: most products; where they don't suffice, the residuals say so.
        tick: called with (products done, products at most).
    """
    most = min(most, len(start))
    space = _Krylov(start, most)
    for done in range(1, most + 1):
        left = space.grow(product)
        tick(done, most)
        values, vectors = space.solve()
        residuals = left * vectors[-1, :count].abs()
        if not left or (done > count and bool((residuals <= tolerance * values[:count]).all())):
            break
    kept = int((values[:count] > _NOTHING * values[0]).sum())
    found = vectors[:, :kept].mT.to(start) @ space.basis[:done]
    return Directions(values[:kept], found, residuals[:kept], space.diagonal[0], done)


def shares(directions: Directions, moved: Tensor, gradient: Tensor, pull: float | None) -> list[dict[str, Any]]:
    """Return, for each direction: support, movement, the loss's own step, the share followed and the one predicted.

    Args:
        directions: in coordinates.
        moved: (n,) coordinates of the displacement.
        gradient: (n,) of the loss, where the displacement starts.
        pull: lambda; None where the penalty has no quadratic form to predict from.
    """
    support = directions.support.tolist()
    along = (directions.vectors @ moved).double().tolist()
    newton = (-(directions.vectors @ gradient).double().cpu() / directions.support).tolist()
    return [
        {
            "support": rho,
            "moved": step,
            "newton": asked,
            "followed": step / asked if asked else None,
            "predicted": None if pull is None else rho / (rho + pull),
        }
        for rho, step, asked in zip(support, along, newton, strict=True)
    ]


def summary(rows: Sequence[dict[str, Any]], moved: Tensor, dimensions: int) -> dict[str, Any]:
    """Return what the directions say together.

    Args:
        rows: as `shares` gives them.
        moved: (n,) coordinates of the displacement.
        dimensions: how many directions there are in all.

    Returns:
        `spearman` between support and |followed|; `followed` and `predicted`, means weighted by what each direction
        promises the loss (rho x its own step^2); `share_of_movement` whose squared length lies within the directions;
        `moved_per_direction` and `moved_per_random_direction`, root mean squares.
    """
    whole = float(moved.double().square().sum())
    within = sum(row["moved"] ** 2 for row in rows)
    known = [row for row in rows if row["followed"] is not None]
    return {
        "spearman": spearman([row["support"] for row in known], [abs(row["followed"]) for row in known]),
        "followed": _weighted(known, "followed"),
        "predicted": _weighted(known, "predicted"),
        "share_of_movement": within / whole if whole else None,
        "moved_per_direction": (within / len(rows)) ** 0.5 if rows else None,
        "moved_per_random_direction": (whole / dimensions) ** 0.5,
    }


def _weighted(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    promised: list[float] = [row["support"] * row["newton"] ** 2 for row in rows]
    if not sum(promised) or any(row[name] is None for row in rows):
        return None
    found: list[float] = [row[name] for row in rows]
    return sum(weight * share for weight, share in zip(promised, found, strict=True)) / sum(promised)


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the rank correlation of two sequences, equal values at their mean rank; None where one is constant."""
    if min(len(set(one)), len(set(other))) < 2:
        return None
    x, y = (_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other))
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.sort(values)
    ranks: NDArray[np.float64] = (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2
    return ranks
