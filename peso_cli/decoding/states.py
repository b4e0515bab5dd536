"""Keys and values of a batch of prompts, each read once; beams attend to them and to their own codes in place.

Prompts of equal length form a run: side by side in one row they need neither padding nor a mask over each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from peso_cli.backbones.attention import additive, causal, grouped_attention, sequences_of


@dataclass(frozen=True)
class Run:
    """`count` prompts of `length` tokens each, the prefix that all prompts share not counted."""

    count: int
    length: int


class Prefix:
    """The tokens that every prompt begins with, read once for all: keys and values of each layer."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        """Attend causally, and keep the keys and values."""
        self.layers.append((key, value))
        return grouped_attention(query, key, value, causal(query), scale).transpose(1, 2)


class Prompts:
    """What beams look back on.

    Attributes:
        runs: the prompts.
        room: how many codes (over all beams and levels) a prompt's buffers have room for.
    """

    def __init__(self, prefix: Prefix, runs: Sequence[Run], room: int) -> None:
        self.runs, self.room = tuple(runs), room
        self._prefix = prefix
        self._buffers: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def reading(self, first: int, last: int) -> _Reading:
        """Return how the prompts of runs `first` up to but not with `last` are read."""
        return _Reading(self, range(first, last))

    def codes(self, used: int, sees: Tensor) -> _Codes:
        """Return how codes are read: behind `used` slots, (prompts, W, used + W) saying which slots each sees."""
        return _Codes(self, used, sees)

    def fill(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Keep the next run's (count, heads, length, width) keys and values behind the prefix's."""
        before = len(self._prefix)
        pair = []
        for side, own in enumerate((key, value)):
            count, heads, length, width = own.shape
            buffer = own.new_empty(count, heads, before + length + self.room, width)
            if before:
                buffer[:, :, :before] = self._prefix.layers[layer][side]
            buffer[:, :, before : before + length] = own
            pair.append(buffer)
        self._buffers.setdefault(layer, []).append((pair[0], pair[1]))

    def seen(self, layer: int, run: int, used: int) -> tuple[Tensor, Tensor]:
        """Return the (count, heads, prefix + length + used, width) keys and values of a run, as views."""
        key, value = self._buffers[layer][run]
        stop = self.length(run) + used
        return key[:, :, :stop], value[:, :, :stop]

    def length(self, run: int) -> int:
        """Return how many tokens each prompt of a run has, the prefix counted."""
        return len(self._prefix) + self.runs[run].length


class _Reading:
    """Prompts read for the first time."""

    def __init__(self, prompts: Prompts, runs: range) -> None:
        self._prompts, self._runs = prompts, runs

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        parts = []
        chosen = [self._prompts.runs[run] for run in self._runs]
        for run, (q, k, v) in zip(self._runs, _split(chosen, query, key, value), strict=True):
            self._prompts.fill(layer, k, v)
            keys, values = self._prompts.seen(layer, run, 0)
            out = grouped_attention(q, keys, values, causal(q, keys.shape[2] - q.shape[2]), scale)
            parts.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(parts)[None]


class _Codes:
    """The newest code of every beam: it sees its prompt, its ancestors' codes and itself."""

    def __init__(self, prompts: Prompts, used: int, sees: Tensor) -> None:
        self._prompts, self._used, self._width = prompts, used, sees.shape[1]
        self._masks: list[Tensor] = []
        parts = torch.split(sees, [run.count for run in prompts.runs])
        for run, own in enumerate(parts):
            everything = torch.ones(*own.shape[:2], prompts.length(run), dtype=torch.bool, device=own.device)
            self._masks.append(torch.cat([everything, own], dim=2)[:, None])

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        parts, stop = [], self._used + self._width
        beams = [Run(run.count, self._width) for run in self._prompts.runs]
        if layer == 0:
            self._masks = [mask if mask.dtype == query.dtype else additive(mask, query.dtype) for mask in self._masks]
        for run, (q, k, v) in enumerate(_split(beams, query, key, value)):
            keys, values = self._prompts.seen(layer, run, stop)
            keys[:, :, -self._width :], values[:, :, -self._width :] = k, v
            out = grouped_attention(q, keys, values, self._masks[run], scale)
            parts.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(parts)[None]


def _split(runs: Sequence[Run], *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut (1, heads, tokens, width) rows into (count, heads, length, width) for each run."""
    start = 0
    for run in runs:
        yield tuple(sequences_of(row, start, run.count, run.length) for row in rows)
        start += run.count * run.length


def bytes_per_token(model: PreTrainedModel) -> int:
    """Return how much memory the keys and values of one token take, all layers together."""
    config: Any = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.itemsize)


def free_memory(device: torch.device) -> int:
    """Return how many bytes of memory are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
