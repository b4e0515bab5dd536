"""`peso bench tokenize`: what quantizers cost and what they are worth, on embeddings like those of real item texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sklearn.cluster  # noqa: F401  (so that no quantizer's time holds that of the import)
import torch
from numpy.typing import NDArray

from peso_cli.bench.measure import peak_memory, seconds_of
from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats, Quantizer, Tick
from peso_cli.semantic_ids.residual import chunks, encode, reconstruction_error
from peso_cli.stages import Display

Document = dict[str, Any]

_TOPIC_ITEMS, _LINE_ITEMS = 60, 4
"""Mean number of items of a topic, and of a line of products within one."""

_COMMON, _TOPIC, _LINE = 0.65, 0.7, 0.55
"""Lengths of what all items, those of a topic and those of a line have in common, beside an item's own part."""

_OWN = (0.45, 0.8)
"""Median length of an item's own part, and the standard deviation of its logarithm: some items are near duplicates."""


def bench_quantizers(quantizers: Sequence[Quantizer], rows: int, width: int, seed: int, display: Display) -> Document:
    """Fit each quantizer to generated embeddings and measure it.

    Args:
        quantizers: what is fitted, each by its name.
        rows: number of embeddings.
        width: of an embedding.
        seed: of the embeddings and of the quantizers.
        display: shows progress.
    """
    embeddings = item_like(rows, width, seed)
    return {
        "bench": "tokenize",
        "rows": rows,
        "width": width,
        "threads": torch.get_num_threads(),
        "ways": {each.name: _measured(each, embeddings, seed, display.bar(each.name)) for each in quantizers},
    }


def item_like(rows: int, width: int, seed: int) -> Floats:
    """Return (rows, width) unit vectors that lie as embeddings of item texts do.

    Topics of very different sizes hold lines of products, which hold items; the axes' variances fall as 1 / rank, and
    many an item has a near duplicate, as in MiniLM's embeddings of the titles and descriptions of a shop's items.
    """
    random = np.random.default_rng(seed)
    topics, lines = max(1, rows // _TOPIC_ITEMS), max(1, rows // _LINE_ITEMS)
    topic_of = _zipf(random, topics, lines)
    common = random.standard_normal(width)
    kinds = _COMMON * common / np.linalg.norm(common) + _TOPIC * _spread(random, topics, width)
    kinds = kinds[topic_of] + _LINE * _spread(random, lines, width)
    line_of = _zipf(random, lines, rows)
    found = np.empty((rows, width), np.float32)
    for some in chunks(rows):
        own = _OWN[0] * np.exp(_OWN[1] * random.standard_normal((some.stop - some.start, 1)))
        vectors = kinds[line_of[some]] + own * _spread(random, len(own), width)
        found[some] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def _zipf(random: np.random.Generator, kinds: int, count: int) -> NDArray[np.intp]:
    """Draw `count` of some kinds, the n-th in proportion to (n + 10) ** -0.7."""
    weights = (np.arange(kinds) + 10.0) ** -0.7
    return random.choice(kinds, count, p=weights / weights.sum())


def _spread(random: np.random.Generator, rows: int, width: int) -> NDArray[np.float64]:
    """Draw normal vectors of mean squared length 1 whose axes' variances fall as 1 / rank."""
    variances = 1 / (np.arange(width) + 3.0)
    found: NDArray[np.float64] = random.standard_normal((rows, width)) * np.sqrt(variances / variances.sum())
    return found


def _measured(quantizer: Quantizer, embeddings: Floats, seed: int, tick: Tick) -> Document:
    fitted: list[tuple[Codebooks, Codes]] = []
    seconds: list[float] = []

    def fit() -> None:
        seconds.append(seconds_of(lambda: fitted.append(quantizer.fit(embeddings, seed, tick))))

    peak = peak_memory(fit)
    codebooks, codes = fitted[0]
    return {
        "levels": quantizer.levels,
        "codes": quantizer.codes,
        "seconds": seconds[0],
        "encode_seconds": seconds_of(lambda: encode(codebooks, embeddings)),
        "peak_bytes": peak,
        "codes_used": [len(np.unique(level)) / quantizer.codes for level in codes.T],
        "sharing": sharing(codes),
        "reconstruction_error": reconstruction_error(codebooks, embeddings, codes),
    }


def sharing(codes: Codes) -> float:
    """Return the share of items whose (n, levels) codes another item has, too."""
    _, which, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return float((counts[which.ravel()] > 1).mean())
