"""Many token sequences as one tree: what several of them begin with is read once, and each sees what it would alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from peso_cli.backbones.attention import additive, decoder_states, grouped_attention

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenTree:
    """Sequences merged as far as they begin alike, as N tokens in order of their depth.

    Attributes:
        tokens: (N,) token ids.
        parents: (N,) the token before each, -1 for a first one.
        depths: (N,) how many tokens are before each: its position.
        places: (n, longest) where each sequence's tokens are, -1 behind its end.
    """

    tokens: Index
    parents: Index
    depths: Index
    places: Index

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def sees(self) -> NDArray[np.bool_]:
        """(N, N) which tokens each one sees: those before it in the sequences that it is of, and itself."""
        seen = np.eye(len(self), dtype=bool)
        for depth in range(1, int(self.depths[-1]) + 1):
            level = np.flatnonzero(self.depths == depth)
            seen[level] |= seen[self.parents[level]]
        return seen

    def states(self, model: PreTrainedModel, read: Index) -> Tensor:
        """Return the (n, hidden) last hidden states of a causal LM at some places, in one pass over the tree."""
        row, positions, where = (torch.from_numpy(each).to(model.device) for each in (self.tokens, self.depths, read))
        return decoder_states(model, row[None], positions[None], _Ancestors(self.sees, model.device), where)


class _Ancestors:
    """Attention of a tree's tokens to those that they see."""

    def __init__(self, sees: NDArray[np.bool_], device: torch.device) -> None:
        self._sees = torch.from_numpy(sees).to(device)
        self._mask: Tensor | None = None

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        """Attend, see `Attend`."""
        if self._mask is None:
            self._mask = additive(self._sees, query.dtype)[None, None]
        return grouped_attention(query, key, value, self._mask, scale, dropout).transpose(1, 2)


def token_tree(sequences: Sequence[Index]) -> TokenTree:
    """Return the tree of (n) sequences of token ids, each with at least one."""
    lengths = np.array([len(sequence) for sequence in sequences])
    rows = np.full((len(sequences), lengths.max()), -1, dtype=np.int64)
    rows[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(sequences)
    parents, tokens, depths = [], [], []
    places, before, count = np.full_like(rows, -1), np.full(len(rows), -1, dtype=np.int64), 0
    for depth in range(rows.shape[1]):
        there = np.flatnonzero(rows[:, depth] >= 0)
        pairs, which = np.unique(np.stack([before[there], rows[there, depth]]), axis=1, return_inverse=True)
        places[there, depth] = before[there] = count + which.reshape(-1)
        count += pairs.shape[1]
        parents.append(pairs[0])
        tokens.append(pairs[1])
        depths.append(np.full(pairs.shape[1], depth))
    return TokenTree(np.concatenate(tokens), np.concatenate(parents), np.concatenate(depths), places)
