"""Small models with LoRA adapters, and padded batches of one example a row, for parts that look at data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from worlds import catalog_of, small_llama, vocabulary_of

from peso_cli.methods.lora import lora_factors
from peso_cli.methods.parts import RegularizerStart
from peso_cli.methods.stacking import stack
from peso_cli.training.layouts import Batch

VOCABULARY = vocabulary_of(catalog_of([[0, 1], [1, 0]]))
TARGETS = ("q_proj", "down_proj", "lm_head")
LABELS = 3


def lora_model(targets: Sequence[str] = TARGETS, stacked: bool = False, dropout: float = 0.0) -> nn.Module:
    """A model whose factors are all random; `stacked` puts those of two earlier stages under them, with magnitudes."""
    settings = LoraConfig(r=2, lora_alpha=3.0, lora_dropout=dropout, target_modules=list(targets))
    model = get_peft_model(small_llama(VOCABULARY), settings)
    if stacked:
        past = [{m: (torch.randn_like(a), torch.randn_like(b)) for m, (a, b) in lora_factors(model).items()}] * 2
        stack(model, past, learn_magnitudes=True)
    move(model, 0.3)
    return model


@torch.no_grad()
def move(model: nn.Module, size: float, seed: int = 5) -> None:
    """Move all that trains by a random step."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def padded(size: int, rows: int = 4, length: int = 9, seed: int = 0) -> Batch:
    """Rows of random tokens of which some end early, each with LABELS labels at its end."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, size, (rows, length))
    ends = rng.integers(LABELS, length + 1, rows)
    tokens[np.arange(length) >= ends[:, None]] = 0
    at = (np.arange(rows) * length + ends - LABELS)[:, None] + np.arange(LABELS)
    return Batch(tokens, at.reshape(-1), rng.integers(0, size, rows * LABELS))


class SomeData:
    """Batches of each stage."""

    def batches(self, stage: int) -> Iterator[Batch]:
        return self.examples(stage, 8)

    def examples(self, stage: int, most: int) -> Iterator[Batch]:
        return (padded(VOCABULARY.size, rows=min(most, 4), seed=10 * stage + n) for n in range(2))


def started(model: nn.Module, **changes) -> RegularizerStart:
    """What a regularizer begins a stage of a model from."""
    return RegularizerStart(model, lora_factors(model), **changes)


def flat(factors) -> list[Tensor]:
    """All factors, A before B."""
    return [factor for pair in factors.values() for factor in pair]
