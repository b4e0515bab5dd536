"""Vocabularies that are mostly words, as those of pretrained models, and models over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from worlds import small_llama

from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.decoding import scoring
from peso_cli.semantic_ids.catalog import Catalog


def wordy_vocabulary(catalog: Catalog, before: int, after: int, end: int | None = None) -> Vocabulary:
    """Words, then the codes level by level, then more words; row `end` (None: amid the first words) ends answers."""
    sizes = catalog.level_sizes
    first = before + np.cumsum([0, *sizes[:-1]])
    size = before + sum(sizes) + after
    return Vocabulary(size, 0, before // 2 if end is None else end, 1, first.astype(np.int64), sizes, lambda text: [])


def head_with_words_at(vocabulary: Vocabulary, shift: float, weight: torch.Tensor) -> nn.Linear:
    """A head of given weights that adds `shift` to the logit of every word, and nothing to codes and the end token."""
    head = nn.Linear(weight.shape[1], len(weight))
    head.weight.data.copy_(weight)
    nn.init.constant_(head.bias, shift)
    head.bias.data[[*vocabulary.sid_ids, vocabulary.end]] = 0
    return head


def wordy_llama(vocabulary: Vocabulary, shift: float, seed: int = 0):
    """A random model; words weigh exp(shift) times as much as codes: 0 as before any training, below 0 as after it."""
    model = small_llama(vocabulary, seed)
    model.set_output_embeddings(head_with_words_at(vocabulary, shift, model.get_output_embeddings().weight))
    return model.eval()


@contextmanager
def words_are(lazy: bool) -> Iterator[None]:
    """Scorers made meanwhile leave the mass of words to be asked for, or never do, however few or many there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_FEW", 0 if lazy else 10**9)
        yield
