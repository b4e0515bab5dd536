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

_LARGEST_BLOCK = 31 << 20
"""Bytes of a block of which glibc, which looks at none above 32 MB, still takes note."""


@dataclass(frozen=True)
class Run:
    """`count` prompts of `length` tokens each, the prefix that all prompts share not counted."""

    count: int
    length: int


@dataclass(frozen=True)
class Part:
    """`count` prompts of run number `run`, from its prompt number `start` on."""

    run: int
    start: int
    count: int


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
        self._buffers: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def reading(self, parts: Sequence[Part]) -> _Reading:
        """Return how some prompts are read together."""
        return _Reading(self, parts)

    def codes(self, used: int, sees: Tensor) -> _Codes:
        """Return how codes are read: behind `used` slots, (prompts, W, used + W) saying which slots each sees."""
        return _Codes(self, used, sees)

    def fill(self, layer: int, part: Part, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the (count, heads, length, width) keys and values of prompts; return them behind the prefix's."""
        if (layer, part.run) not in self._buffers:
            of_prefix = self._prefix.layers[layer] if len(self._prefix) else (None, None)
            self._buffers[layer, part.run] = (
                self._buffer(part.run, key, of_prefix[0]),
                self._buffer(part.run, value, of_prefix[1]),
            )
        prompts = slice(part.start, part.start + part.count)
        keys, values = (side[prompts] for side in self.seen(layer, part.run, 0))
        keys[:, :, len(self._prefix) :], values[:, :, len(self._prefix) :] = key, value
        return keys, values

    def _buffer(self, run: int, like: Tensor, of_prefix: Tensor | None) -> Tensor:
        """Return room for a run's keys or values, the prefix's in place."""
        _, heads, _, width = like.shape
        buffer = like.new_empty(self.runs[run].count, heads, self.length(run) + self.room, width)
        if of_prefix is not None:
            buffer[:, :, : len(self._prefix)] = of_prefix
        return buffer

    def seen(self, layer: int, run: int, used: int) -> tuple[Tensor, Tensor]:
        """Return the (count, heads, prefix + length + used, width) keys and values of a run, as views."""
        key, value = self._buffers[layer, run]
        stop = self.length(run) + used
        return key[:, :, :stop], value[:, :, :stop]

    def length(self, run: int) -> int:
        """Return how many tokens each prompt of a run has, the prefix counted."""
        return len(self._prefix) + self.runs[run].length


class _Reading:
    """Prompts read for the first time."""

    def __init__(self, prompts: Prompts, parts: Sequence[Part]) -> None:
        self._prompts, self._parts = prompts, parts

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        gathered = []
        shapes = [Run(part.count, self._prompts.runs[part.run].length) for part in self._parts]
        for part, (q, k, v) in zip(self._parts, _split(shapes, query, key, value), strict=True):
            keys, values = self._prompts.fill(layer, part, k, v)
            out = grouped_attention(q, keys, values, causal(q, keys.shape[2] - q.shape[2]), scale)
            gathered.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(gathered)[None]


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


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next batch, instead of asking the system for it anew.

    It keeps up to twice the largest block that has been freed; one is taken, not touched, and freed at once.
    """
    torch.empty(_LARGEST_BLOCK, dtype=torch.uint8)


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
