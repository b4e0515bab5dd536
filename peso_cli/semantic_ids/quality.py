"""How good semantic IDs are: who shares them, how the codes are used, what they lose and what they say of an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats
from peso_cli.semantic_ids.residual import reconstruction_error
from peso_cli.semantic_ids.sharing import Numbers, contested, numbered, shares

_MOST_LABELLED = 20_000
"""Items of which agreement with labels is measured: the time it takes grows with clusters times labels."""


@dataclass(frozen=True)
class Agreement:
    """Adjusted mutual information with a label: 0 where there is no more of it than by chance, 1 where one tells all.

    Attributes:
        first: of the first code.
        first_two: of the first two codes; None where there is one level.
    """

    first: float
    first_two: float | None


@dataclass(frozen=True)
class Sharing:
    """How many items have the semantic ID of another one.

    Attributes:
        all: share of the items.
        beyond_text: share of the items that share with one of different text; None where texts aren't known.
    """

    all: float
    beyond_text: float | None


@dataclass(frozen=True)
class Quality:
    """The figures of semantic IDs; None where they can't be known.

    Attributes:
        items: number of items.
        distinct: number of different semantic IDs.
        before: who shares before anything is done about it.
        after: who shares in the end.
        level_sizes: codes that each level has.
        used: codes of each level that an item has.
        perplexity: of each level: the number of codes that, used evenly, would be as uncertain.
        reconstruction_error: mean squared error of the embeddings, as a share of their variance.
        brand: how far codes agree with brands, over items that have one.
        category: how far codes agree with categories, likewise.
    """

    items: int
    distinct: int
    before: Sharing | None
    after: Sharing
    level_sizes: tuple[int, ...]
    used: tuple[int, ...]
    perplexity: tuple[float, ...]
    reconstruction_error: float | None
    brand: Agreement | None
    category: Agreement | None


def quality(
    codes: Codes,
    level_sizes: Sequence[int],
    embeddings: Floats | None = None,
    codebooks: Codebooks | None = None,
    brands: Sequence[str] = (),
    categories: Sequence[str] = (),
    alike: Numbers | None = None,
    before: Codes | None = None,
) -> Quality:
    """Measure the semantic IDs of items.

    Args:
        codes: (items, levels), at least one item.
        level_sizes: codes of each level.
        embeddings: (items, width), where known.
        codebooks: what the codes belong to, where known; a further level of `codes` is none of theirs.
        brands: (items,) labels, empty where an item has none; or none at all.
        categories: (items,) likewise.
        alike: (items,) the same number for items of equal text, where known.
        before: (items, levels of the codebooks) codes before anything was done about sharing, where known.
    """
    use = [np.bincount(codes[:, level], minlength=size) for level, size in enumerate(level_sizes)]
    error = None
    if embeddings is not None and codebooks is not None:
        error = reconstruction_error(codebooks, embeddings, codes[:, : len(codebooks.centers)])
    return Quality(
        items=len(codes),
        distinct=int(numbered(codes).max()) + 1,
        before=None if before is None else sharing(before, alike),
        after=sharing(codes, alike),
        level_sizes=tuple(level_sizes),
        used=tuple(int((counts > 0).sum()) for counts in use),
        perplexity=tuple(_perplexity(counts) for counts in use),
        reconstruction_error=error,
        brand=agreement(codes, brands),
        category=agreement(codes, categories),
    )


def sharing(codes: Codes, alike: Numbers | None) -> Sharing:
    """Return how many items of (items, levels) codes share."""
    beyond = None if alike is None else float(contested(codes, alike).mean())
    return Sharing(float(shares(codes).mean()), beyond)


def _perplexity(counts: Numbers) -> float:
    """Return exp of the entropy in nats of (codes,) counts."""
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def agreement(codes: Codes, labels: Sequence[str]) -> Agreement | None:
    """Return how far codes agree with labels, over the items that have one; None where there are fewer than two labels.

    Of more than 20,000 items a sample is taken, the same one every time.
    """
    known = np.array([row for row, label in enumerate(labels) if label], dtype=np.int64)
    if len(known) > _MOST_LABELLED:
        known = np.sort(np.random.default_rng(0).choice(known, _MOST_LABELLED, replace=False))
    names = np.unique([labels[row] for row in known], return_inverse=True)[1]
    if len(names) == 0 or names.max() == 0:
        return None
    first_two = _mutual(numbered(codes[known, :2]), names) if codes.shape[1] > 1 else None
    return Agreement(_mutual(numbered(codes[known, :1]), names), first_two)


def _mutual(clusters: Numbers, labels: Numbers) -> float:
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(labels, clusters))
