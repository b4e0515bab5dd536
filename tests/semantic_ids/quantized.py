"""Codebooks that are as plain as can be, and items to give semantic IDs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from peso_cli.semantic_ids.parts import Items
from peso_cli.semantic_ids.residual import encode


@dataclass(frozen=True, eq=False)
class PlainCodebooks:
    """Centres in the embeddings' own space."""

    centers: tuple

    def latents(self, embeddings):
        return embeddings

    def decode(self, latents):
        return latents

    def tensors(self):
        return {f"centers_{level}": centers for level, centers in enumerate(self.centers)}


@dataclass(frozen=True)
class PlainQuantizer:
    """Takes some of the embeddings, and at each further level of what is left over, as centres."""

    name: str = "plain"
    levels: int = 2
    codes: int = 4

    def fit(self, embeddings, seed, tick):
        rng, left, centers = np.random.default_rng(seed), embeddings.copy(), []
        for level in range(self.levels):
            centers.append(left[rng.choice(len(left), self.codes, replace=False)].copy())
            distances = ((left[:, None] - centers[level]) ** 2).sum(axis=2)
            left -= centers[level][distances.argmin(axis=1)]
            tick(level + 1, self.levels, "")
        books = PlainCodebooks(tuple(centers))
        return books, encode(books, embeddings)

    def load(self, tensors):
        return PlainCodebooks(tuple(tensors[f"centers_{level}"] for level in range(self.levels)))


@dataclass(frozen=True)
class LetterEmbedding:
    """Counts letters, each in a direction of its own; texts of the same letters get equal vectors."""

    name: str = "letters"
    width: int = 6

    def embed(self, items, display):
        directions = np.random.default_rng(0).normal(size=(128, self.width))
        rows = [
            directions[[ord(c) % 128 for c in text]].sum(axis=0) if text else np.zeros(self.width)
            for text in items.texts
        ]
        return np.array(rows, dtype=np.float32).reshape(-1, self.width)


@dataclass
class Lines:
    """A display that keeps what it is told."""

    lines: list = field(default_factory=list)

    def say(self, text):
        self.lines.append(text)

    def bar(self, title):
        return lambda done, total, note: None


def items_with(texts, stages=None, brands=None, categories=None):
    """Items `i<n>` of given texts."""
    nothing = ("",) * len(texts)
    stage = np.array(stages if stages is not None else [1] * len(texts), dtype=np.int32)
    ids = tuple(f"i{n}" for n in range(len(texts)))
    return Items(ids, tuple(texts), brands or nothing, categories or nothing, stage, lambda: ())


def random_codebooks(seed, levels, codes, width=3):
    rng = np.random.default_rng(seed)
    return PlainCodebooks(
        tuple(rng.normal(size=(codes, width), scale=2.0**-level).astype(np.float32) for level in range(levels))
    )
