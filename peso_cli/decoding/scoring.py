"""Log-probabilities of codes, and the mass of the rest of the vocabulary only where it can matter.

A plain search divides by the mass of the whole vocabulary. The rows of the code tokens are few; those outside (a
pretrained model's words) are many, and their mass is what decoding a small model spends its time on. A beam whose
continuations would not be kept even if that mass were zero doesn't need it: the search asks for it beam by beam.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from peso_cli.backbones.vocabulary import Vocabulary

Normalise = Literal["vocabulary", "level"]

_BLOCK = 1024
"""Rows of the vocabulary that are looked at together, so that their logits stay in the processor's cache."""


class Scorer:
    """A backbone's head and the vocabulary, set up for one search."""

    def __init__(self, head: nn.Linear, vocabulary: Vocabulary, normalise: Normalise) -> None:
        self._vocabulary, self._head, self.normalise = vocabulary, head, normalise
        self._start = int(vocabulary.first_code[0])
        self._stop = self._start + sum(vocabulary.level_sizes)
        rows = len(head.weight)
        bounds = [*range(0, self._start, _BLOCK), self._start], [*range(self._stop, rows, _BLOCK), rows]
        self._outside = [pair for edges in bounds for pair in itertools.pairwise(edges) if pair[0] < pair[1]]

    def codes(self, hidden: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return what (..., hidden) states say of a level: (..., codes) logits, and the (...) log-mass of all codes.

        With `normalise=level` the mass is that of the level's codes.
        """
        first = int(self._vocabulary.first_code[level])
        last = first + self._vocabulary.level_sizes[level]
        if self.normalise == "level":
            own = self._rows(hidden, first, last)
            return own, own.logsumexp(-1)
        logits = self._rows(hidden, self._start, self._stop)
        return logits[..., first - self._start : last - self._start], logits.logsumexp(-1)

    def log_mass(self, hidden: Tensor, inside: Tensor) -> Tensor:
        """Return (n) the log-mass of the whole vocabulary for (n, hidden) states, given that of the code tokens."""
        total = torch.zeros_like(inside)
        for start, stop in self._outside:
            total += self._rows(hidden, start, stop).sub_(inside[:, None]).exp_().sum(1)
        if torch.isfinite(total).all():
            return inside + total.log1p()
        # Words that outweigh all codes by more than a float32 holds, as before any training: slower, but safe.
        parts = [self._rows(hidden, start, stop).logsumexp(1) for start, stop in self._outside]
        return torch.stack([inside, *parts]).logsumexp(0)

    def end(self, hidden: Tensor) -> Tensor:
        """Return the logits of the end token."""
        end = self._vocabulary.end
        return self._rows(hidden, end, end + 1)[..., 0]

    def _rows(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        bias = None if self._head.bias is None else self._head.bias[start:stop]
        return functional.linear(hidden, self._head.weight[start:stop], bias).float()
