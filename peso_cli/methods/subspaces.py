"""Subspaces of what modules read: which part of a space past inputs take up, and directions of a LoRA's A outside it.

GPM (Saha et al. 2021, arXiv 2103.09762) keeps an orthonormal basis of the subspace in which past inputs lie. DualGPM
(Liang and Li 2023) keeps one of its orthogonal complement once that is the smaller of the two. Here both are parts of
one orthonormal basis of the whole space while they are worked with, so that a single rule lets either of them grow;
only what is written is the smaller one. InfLoRA (Liang and Li 2024, arXiv 2404.00228) designs A in the complement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from peso_cli.methods.parts import State

SUBSPACE, COMPLEMENT = "subspace", "complement"
"""How a stage's state names a basis: behind the module's name and a dot."""


@dataclass(frozen=True, eq=False)
class Split:
    """A space of n dimensions cut in two: orthonormal columns, in float64, that together are a basis of it.

    Attributes:
        inside: (n, m) basis of the past inputs' subspace.
        outside: (n, n - m) basis of its orthogonal complement.
    """

    inside: Tensor
    outside: Tensor


def nothing_kept(dimensions: int, device: torch.device | str = "cpu") -> Split:
    """Return the split of a space in which there are no past inputs."""
    everything = torch.eye(dimensions, dtype=torch.float64, device=device)
    return Split(everything[:, :0], everything)


def keep(split: Split, moment: Tensor, threshold: float) -> Split:
    """Return the split whose inside has grown until it holds a share of the energy of some inputs.

    The fewest directions of the outside are added, those of the largest energy first (GPM's eq. 9). Energy is the
    inputs' mean square. The released code of InfLoRA takes squares of the second moment's own entries for it, which
    lets the largest directions count for more: at one threshold it keeps fewer.

    Args:
        split: the past inputs' so far.
        moment: (n, n) second moment E[x x^T] of the inputs, in float64.
        threshold: the share that the inside is to hold, from 0 to 1.
    """
    directions, energies = _principal(split.outside, moment)
    total = moment.trace()
    left_out = energies.flip(0).cumsum(0).flip(0).clamp(max=total)  # if as many directions are added as stand before
    more = int((left_out > (1 - threshold) * total).sum())
    return Split(torch.cat([split.inside, directions[:, :more]], dim=1), directions[:, more:])


def design(split: Split, moment: Tensor, rank: int) -> Tensor:
    """Return the (rank, n) A of a module: the outside's directions in which the inputs have most energy, as rows.

    These are the left singular vectors of the inputs' part outside, divided by sqrt(3): then the root of the entries'
    mean square is 1/sqrt(3 n), as it is in a fresh LoRA's A. Where the outside has fewer dimensions than the rank, the
    rows that remain are zeros: any other row would read past inputs.

    Args:
        split: the past inputs'.
        moment: (n, n) second moment of the inputs to come, in float64.
        rank: of the LoRA.
    """
    directions, _ = _principal(split.outside, moment)
    rows = directions[:, :rank].mT / math.sqrt(3)
    return functional.pad(rows, (0, 0, 0, rank - len(rows)))


def _principal(basis: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return the principal directions of inputs projected on a subspace, and their energies, both by falling energy.

    Args:
        basis: (n, k) orthonormal columns.
        moment: (n, n) the inputs' second moment.

    Returns:
        (n, k) another orthonormal basis of the same subspace, and (k,) mean squares along its columns.
    """
    # Within the subspace: as a matrix on the whole space, the projected moment would mix directions without energy
    # with those that were projected away.
    energies, vectors = torch.linalg.eigh(basis.mT @ moment @ basis)
    return _signed(basis @ vectors.flip(1)), energies.flip(0).clamp(min=0)


def _signed(columns: Tensor) -> Tensor:
    """Return columns with such signs that the entry of the largest size is positive, whatever the solver chose."""
    if not columns.numel():
        return columns
    largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))
    return torch.where(largest < 0, -columns, columns)


def as_state(splits: Mapping[str, Split]) -> State:
    """Return splits by module as tensors: the smaller basis of each, in float32, which is half the room."""
    state = {}
    for module, split in splits.items():
        smaller = SUBSPACE if split.inside.shape[1] <= split.outside.shape[1] else COMPLEMENT
        basis = split.inside if smaller == SUBSPACE else split.outside
        state[f"{module}.{smaller}"] = basis.float()
    return state


def of_state(state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> dict[str, Split]:
    """Return what such tensors hold, by module; other tensors in between are passed over."""
    found = {}
    for key, basis in state.items():
        module, _, kind = key.rpartition(".")
        if kind in (SUBSPACE, COMPLEMENT):
            part, rest = _completed(basis.to(device).double())
            found[module] = Split(part, rest) if kind == SUBSPACE else Split(rest, part)
    return found


def _completed(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal bases of the space of (n, k) columns and of its complement."""
    whole = torch.linalg.qr(basis, mode="complete").Q
    return whole[:, : basis.shape[1]], whole[:, basis.shape[1] :]


def remember(model: nn.Module, splits: Mapping[str, Split]) -> None:
    """Attach splits to a model's modules, beside all that it saves."""
    for key, basis in as_state(splits).items():
        module, _, kind = key.rpartition(".")
        model.get_submodule(module).register_buffer(kind, basis, persistent=False)


def remembered(model: nn.Module) -> State:
    """Return what `remember` attached, as `as_state` names it."""
    return {name: basis for name, basis in model.named_buffers() if name.rpartition(".")[2] in (SUBSPACE, COMPLEMENT)}
