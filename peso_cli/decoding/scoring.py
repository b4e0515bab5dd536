"""Log-probabilities of codes, and the mass of the vocabulary's other words only where it can matter.

A plain search divides by the mass of the whole vocabulary. The rows of the code tokens and of the end token are few;
the words of a pretrained model are many, and their mass is what decoding a small model spends its time on. A beam whose
continuations would not be kept even if that mass were zero doesn't need it: the search asks for it beam by beam.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from peso_cli.backbones.products import linear
from peso_cli.backbones.vocabulary import Vocabulary

Normalise = Literal["vocabulary", "vocabulary_bfloat16", "level"]

_BLOCK = 1024
"""Words that are looked at together, so that their logits stay in the processor's cache."""

_STATES = 512
"""States that are compared with all words together, for the same reason."""

_FEW = 4096
"""So many words cost less than finding out for which beams they matter."""


class Scorer:
    """A backbone's head and the vocabulary, set up for one search.

    With `normalise=vocabulary` scores are those of a plain search. `vocabulary_bfloat16` takes the words' logits, and
    nothing else, in bfloat16 where words are many. `level` divides by the mass of the level's codes alone and leaves
    the end token out.

    Attributes:
        lazy: whether `codes` leaves the mass of the words to be asked for.
    """

    def __init__(self, head: nn.Linear, vocabulary: Vocabulary, normalise: Normalise) -> None:
        self._vocabulary, self._head, self.normalise = vocabulary, head, normalise
        self._start = int(vocabulary.first_code[0])
        self._stop = self._start + sum(vocabulary.level_sizes)
        words = len(head.weight) - (self._stop - self._start) - 1
        self.lazy = normalise != "level" and words > _FEW
        # What words have in common is most of their logits; taken off, it isn't rounded to bfloat16's few digits.
        centred = self.lazy and normalise == "vocabulary_bfloat16"
        self._centre = head.weight.detach().mean(0) if centred else None
        self._words = self._word_blocks() if self.lazy else []

    def _word_blocks(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return weights and biases of all rows but the codes' and the end token's, in blocks."""
        end, weight, bias = self._vocabulary.end, self._head.weight.detach(), self._head.bias
        dtype = torch.bfloat16 if self._centre is not None else weight.dtype
        (first, after), (last, behind) = sorted([(end, end + 1), (self._start, self._stop)])
        spans = [(0, first), (after, last), (behind, len(weight))]
        blocks = [slice(*pair) for start, stop in spans for pair in pairwise([*range(start, stop, _BLOCK), stop])]
        return [
            (self._centred(weight[rows]), None if bias is None else bias[rows].detach().to(dtype)) for rows in blocks
        ]

    def _centred(self, weight: Tensor) -> Tensor:
        return weight if self._centre is None else (weight - self._centre).bfloat16()

    def codes(self, hidden: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return what (..., hidden) states say of a level: (..., codes) logits, and the (...) log-mass to divide by.

        Where words are many (`lazy`) it is the mass of codes and end token only, and `log_mass` adds that of the words.
        Else logits are log-probabilities already, and 0 is left to divide by.
        """
        first = int(self._vocabulary.first_code[level])
        last = first + self._vocabulary.level_sizes[level]
        if self.lazy:
            logits = self._rows(hidden, self._start, self._stop)
            return logits[..., first - self._start : last - self._start], self._mass(logits, hidden)
        nothing = hidden.new_zeros(hidden.shape[:-1], dtype=torch.float32)
        if self.normalise == "level":
            return self._rows(hidden, first, last).log_softmax(-1), nothing
        return self._log_probabilities(hidden, first, last), nothing

    def _log_probabilities(self, hidden: Tensor, first: int, last: int) -> Tensor:
        """Return (..., last - first) log-probabilities of some of all words."""
        states = hidden.flatten(0, -2)
        found = states.new_empty(len(states), last - first, dtype=torch.float32)
        for some, into in zip(torch.split(states, _STATES), torch.split(found, _STATES), strict=True):
            into.copy_(self._rows(some, 0, len(self._head.weight)).log_softmax(-1)[:, first:last])
        return found.view(*hidden.shape[:-1], -1)

    def _mass(self, logits: Tensor, hidden: Tensor) -> Tensor:
        return torch.logaddexp(logits.logsumexp(-1), self.end(hidden))

    def log_mass(self, hidden: Tensor, known: Tensor) -> Tensor:
        """Return (n) the log-mass of the whole vocabulary for (n, hidden) states, given what `codes` said of it."""
        shift = -known if self._centre is None else (hidden @ self._centre).float() - known
        hidden = hidden if self._centre is None else hidden.bfloat16()
        total = torch.zeros_like(known)
        for weight, bias in self._words:
            total += linear(hidden, weight, bias).float().add_(shift[:, None]).exp_().sum(1)
        if torch.isfinite(total).all():
            return known + total.log1p()
        # Words that outweigh all codes by more than a float32 holds, as before any training: slower, but safe.
        parts = [linear(hidden, weight, bias).float().logsumexp(1) + shift for weight, bias in self._words]
        return known + torch.stack([torch.zeros_like(known), *parts]).logsumexp(0)

    def end_log_probability(self, hidden: Tensor) -> Tensor:
        """Return (n) the log-probability of the end token after (n, hidden) states."""
        if not self.lazy:
            return self._log_probabilities(hidden, self._vocabulary.end, self._vocabulary.end + 1)[:, 0]
        known = self._mass(self._rows(hidden, self._start, self._stop), hidden)
        return self.end(hidden) - self.log_mass(hidden, known)

    def end(self, hidden: Tensor) -> Tensor:
        """Return the logits of the end token."""
        end = self._vocabulary.end
        return self._rows(hidden, end, end + 1)[..., 0]

    def _rows(self, hidden: Tensor, start: int, stop: int) -> Tensor:
        bias = None if self._head.bias is None else self._head.bias[start:stop]
        return linear(hidden, self._head.weight[start:stop], bias).float()
