"""Exact scores of given semantic IDs: what a beam search gives them, whether or not it would find them.

A prompt is read once; behind it the distinct prefixes of its candidates are read level by level, as beams are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peso_cli.decoding.beam import Beams, BeamSearch, Tokens


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The distinct prefixes of the candidates of B prompts, W of them at a level; where there are fewer, one repeats.

    Attributes:
        parents: for each level, (B, W) which prefix of the level above each one goes on from.
        codes: for each level, (B, W) by which code.
        place: (B, C) which prefix of the last level each candidate is.
    """

    parents: tuple[NDArray[np.int64], ...]
    codes: tuple[NDArray[np.int64], ...]
    place: NDArray[np.int64]


def distinct_prefixes(candidates: NDArray[np.int32]) -> Prefixes:
    """Find the distinct prefixes of (B, C, levels) codes of candidates, each prompt's in lexicographic order, C > 0."""
    parents, codes = [], []
    begins = np.zeros(candidates.shape[:2], dtype=bool)
    begins[:, 0] = True
    above = np.zeros(candidates.shape[:2], dtype=np.int64)
    for column in np.moveaxis(candidates, 2, 0):
        begins[:, 1:] |= column[:, 1:] != column[:, :-1]
        place = begins.cumsum(axis=1) - 1
        first = np.zeros((len(place), int(place.max()) + 1), dtype=np.int64)
        prompt, candidate = np.nonzero(begins)
        first[prompt, place[prompt, candidate]] = candidate
        parents.append(np.take_along_axis(above, first, axis=1))
        codes.append(np.take_along_axis(column, first, axis=1).astype(np.int64))
        above = place
    return Prefixes(tuple(parents), tuple(codes), above)


def likelihoods(
    search: BeamSearch, prompts: Sequence[Tokens], rows: NDArray[np.int64], sids: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Score candidates.

    Args:
        search: at least as wide as the most candidates of a prompt.
        prompts: the token ids of each behind the search's prefix, at least one, in ascending order of their lengths.
        rows: (B, C) rows of `sids`, in any order; -1 for none.
        sids: (n, levels) distinct semantic IDs in lexicographic order.

    Returns:
        (B, C) mean log-probability of each candidate's tokens, as the search scores them; minus infinity for none.
    """
    # What is none repeats a candidate of the same prompt, which adds no prefix.
    filled = np.where(rows >= 0, rows, rows.max(axis=1, keepdims=True, initial=0))
    order = np.argsort(filled, axis=1, kind="stable")
    prefixes = distinct_prefixes(sids[np.take_along_axis(filled, order, axis=1)])
    sums = search.walk(prompts, _Given(search, prefixes))[1]
    found = (sums / search.tokens).float().cpu().numpy()
    scores = np.empty(rows.shape, dtype=np.float32)
    np.put_along_axis(scores, order, np.take_along_axis(found, prefixes.place, axis=1), axis=1)
    return np.where(rows >= 0, scores, np.float32(-np.inf))


@dataclass(frozen=True, eq=False)
class _Given:
    """Goes on with the given prefixes, whatever they are worth."""

    search: BeamSearch
    prefixes: Prefixes

    def __call__(self, beams: Beams, hidden: Tensor, level: int) -> Beams:
        parent, code = (self._tensor(each[level]) for each in (self.prefixes.parents, self.prefixes.codes))
        logits, mass = self.search.scorer.codes(hidden, level)
        if self.search.scorer.lazy:
            mass = self.search.scorer.log_mass(hidden.flatten(0, 1), mass.flatten()).view_as(mass)
        gains = logits.flatten(1).gather(1, parent * logits.shape[-1] + code)
        return beams.grown(parent, code, parent, (beams.scores - mass).gather(1, parent) + gains)

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.search.model.device)
