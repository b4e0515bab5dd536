"""Trees: one history and all the targets that it serves, as tokens of which each sees just what its example shows.

The trunk holds the history's items; for each target a branch holds the template's tail and the answer. Where an answer
looks just like the next item of a history (a prompt that chains), the trunk itself holds the answers and there are no
branches. The template's head comes before all trees of a row and belongs to each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peso_cli.backbones.attention import Attend, additive, causal, grouped_attention, sequences_of
from peso_cli.backbones.prompts import Prompt
from peso_cli.training.sequences import Index

_TRUNK = -1
_HEAD = -1


@dataclass(frozen=True, eq=False)
class Tree:
    """The shape of a tree of n tokens behind a head of h tokens; trees of as many items and targets are alike.

    Attributes:
        head: h.
        branch: (n,) which target's branch a token lies in, -1 in the trunk.
        reach: (n,) how many of the trunk's tokens a token sees.
        positions: (n,) position ids: where the token would be in its own example.
        answer_at: (targets, levels + 1) which token predicts each code and the end token; -1 is the head's last.
    """

    head: int
    branch: Index
    reach: Index
    positions: Index
    answer_at: Index

    def __len__(self) -> int:
        return len(self.branch)

    @cached_property
    def sees(self) -> NDArray[np.bool_]:
        """(n, h + n) which tokens of the head and of the tree each token sees."""
        place = np.arange(len(self))
        trunk = (self.branch == _TRUNK) & (place < self.reach[:, None])
        own = (self.branch != _TRUNK) & (self.branch == self.branch[:, None]) & (place <= place[:, None])
        return np.concatenate([np.ones((len(self), self.head), dtype=bool), trunk | own], axis=1)

    @cached_property
    def mask(self) -> Tensor:
        """(1, 1, n, h + n) the same as a mask in float32 that is added to attention scores."""
        return additive(torch.from_numpy(self.sees), torch.float32)[None, None]


def tree_of(prompt: Prompt, items: int, targets: int) -> Tree:
    """Return the tree of a sequence that reads `items` items and answers `targets` targets."""
    levels, width = prompt.answers.shape[1], prompt.items.shape[1]
    seen = (items - targets + 1 + np.arange(targets)) * width
    steps = np.arange(levels + 1)
    if prompt.chains:
        place = np.arange((items + 1) * width)
        trunk = np.full(len(place), _TRUNK)
        return Tree(len(prompt.head), trunk, place + 1, len(prompt.head) + place, seen[:, None] - 1 + steps)
    trunk, tail = items * width, len(prompt.tail)
    place, inside = np.arange(trunk), np.tile(np.arange(tail + levels), targets)
    branch = np.repeat(np.arange(targets), tail + levels)
    reach = np.concatenate([place + 1, seen[branch]])
    begins = trunk + (tail + levels) * np.arange(targets)
    answer_at = begins[:, None] + tail - 1 + steps
    if not tail:
        answer_at[:, 0] = seen - 1
    return Tree(
        head=len(prompt.head),
        branch=np.concatenate([np.full(trunk, _TRUNK), branch]),
        reach=reach,
        positions=len(prompt.head) + np.concatenate([place, seen[branch] + inside]),
        answer_at=answer_at,
    )


@dataclass(frozen=True, eq=False)
class Grove:
    """A row's trees: for each run of trees that are alike, the tree and how many there are."""

    runs: tuple[tuple[Tree, int], ...]

    def attend(self, device: torch.device) -> Attend:
        """Return how the row attends, in the way that is fast on a device."""
        return ByBlocks(self, device) if device.type == "cuda" else ByRuns(self)


class ByRuns:
    """One product for each run of equal trees: no padding, and nobody looks at another tree even to mask it."""

    def __init__(self, grove: Grove) -> None:
        self._runs = grove.runs
        self._head = grove.runs[0][0].head

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        """Attend, see `Attend`."""
        q, k, v = (x[:, :, : self._head] for x in (query, key, value))
        shared = k, v
        parts = [grouped_attention(q, k, v, causal(q), scale, dropout).transpose(1, 2)]
        start = self._head
        for tree, count in self._runs:
            q, k, v = (sequences_of(x, start, count, len(tree)) for x in (query, key, value))
            keys, values = (torch.cat([h.expand(count, -1, -1, -1), x], 2) for h, x in zip(shared, (k, v), strict=True))
            mask = tree.mask.to(query.device, query.dtype)
            out = grouped_attention(q, keys, values, mask, scale, dropout)
            parts.append(out.transpose(1, 2).flatten(0, 1)[None])
            start += count * len(tree)
        return torch.cat(parts, dim=1)


class ByBlocks:
    """FlexAttention over the whole row: a block mask says which tiles of the product are needed at all."""

    def __init__(self, grove: Grove, device: torch.device) -> None:
        from torch.nn.attention.flex_attention import create_block_mask

        tokens = {name: torch.from_numpy(row).to(device) for name, row in _token_columns(grove).items()}
        tree, branch, reach, place = (tokens[name] for name in ("tree", "branch", "reach", "place"))

        def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            trunk = (branch[k] == _TRUNK) & (place[k] < reach[q])
            own = (branch[k] != _TRUNK) & (branch[k] == branch[q]) & (k <= q)
            return ((tree[k] == _HEAD) & (k <= q)) | ((tree[k] == tree[q]) & (tree[k] != _HEAD) & (trunk | own))

        length = len(tree)
        self._mask = create_block_mask(sees, None, None, length, length, device=device)
        self._with_dropout = ByRuns(grove)
        self._flex = _flex(device.type)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        """Attend, see `Attend`; FlexAttention has no dropout, which therefore goes by runs."""
        if dropout:
            return self._with_dropout(layer, query, key, value, scale, dropout)
        grouped = query.shape[1] != key.shape[1]
        out: Tensor = self._flex(query, key, value, block_mask=self._mask, scale=scale, enable_gqa=grouped)
        return out.transpose(1, 2)


def _token_columns(grove: Grove) -> dict[str, Index]:
    """Return for each token of a row its tree (-1: the head), branch, reach, and place in its tree."""
    head = grove.runs[0][0].head
    columns: dict[str, list[Index]] = {
        "tree": [np.full(head, _HEAD)],
        "branch": [np.full(head, _TRUNK)],
        "reach": [np.zeros(head, dtype=np.int64)],
        "place": [np.arange(head)],
    }
    before = 0
    for tree, count in grove.runs:
        columns["tree"].append(before + np.repeat(np.arange(count), len(tree)))
        columns["branch"].append(np.tile(tree.branch, count))
        columns["reach"].append(np.tile(tree.reach, count))
        columns["place"].append(np.tile(np.arange(len(tree)), count))
        before += count
    return {name: np.concatenate(parts) for name, parts in columns.items()}


@cache
def _flex(device: str) -> Any:
    """Return FlexAttention, compiled where it is meant to be fast; on the CPU it serves as a check only."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention
