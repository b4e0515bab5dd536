"""From items to semantic IDs: embed, fit codebooks, encode with what is frozen, resolve stage by stage, measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from peso_cli.errors import InputError
from peso_cli.semantic_ids.collisions import Given, Kind, nothing_given, resolve
from peso_cli.semantic_ids.parts import Codebooks, Codes, Embedding, Floats, Items, Quantizer
from peso_cli.semantic_ids.quality import Quality, quality
from peso_cli.semantic_ids.residual import encode
from peso_cli.semantic_ids.settings import Tokenizer
from peso_cli.semantic_ids.sharing import Numbers, alike
from peso_cli.semantic_ids.store import Stored

if TYPE_CHECKING:
    from peso_cli.stages import Display


@dataclass(frozen=True, eq=False)
class Tokenized:
    """Semantic IDs of items.

    Attributes:
        codes: (items, levels) the code of each item at each level.
        level_sizes: codes that each level has.
        codebooks: what the codes stand for.
        report: how good they are.
    """

    codes: Codes
    level_sizes: tuple[int, ...]
    codebooks: Codebooks
    report: Quality


def tokenize(
    items: Items, embedding: Embedding, quantizer: Quantizer, tokenizer: Tokenizer, display: Display
) -> Tokenized:
    """Give all items semantic IDs.

    With `fit_on=stage_1`, codebooks come of the items of stage 1; those of each later stage are encoded with them and
    avoid the semantic IDs that there are, so that no stage depends on a later one. With `fit_on=all`, all items are
    treated at once.

    Raises:
        InputError: the embedding or the quantizer doesn't fit the items, or they don't fit into the semantic IDs.
    """
    embeddings = embedding.embed(items, display)
    kinds = alike(items.texts, embeddings)
    first, *later = _turns(items, tokenizer.fit_on)
    codebooks, fitted = quantizer.fit(embeddings[first], tokenizer.seed, display.bar(f"fitting {quantizer.name}"))
    parts = [fitted, *(encode(codebooks, embeddings[rows]) for rows in later)]
    given = nothing_given(tokenizer.resolve, codebooks, fitted)
    for rows, codes in zip((first, *later), parts, strict=True):
        given = _give(tokenizer.resolve, codebooks, embeddings[rows], codes, kinds[rows], given)
    back = np.argsort(np.concatenate([first, *later]), kind="stable")
    codes, before = given.codes[back], np.concatenate(parts)[back]
    report = quality(
        codes, given.level_sizes, embeddings, codebooks, items.brands, items.categories, alike=kinds, before=before
    )
    return Tokenized(codes, given.level_sizes, codebooks, report)


def extend(stored: Stored, items: Items, embedding: Embedding, quantizer: Quantizer, display: Display) -> Tokenized:
    """Give the items of appended stages semantic IDs with the codebooks that are stored.

    They are those that `tokenize` would have given with `fit_on=stage_1`; all others stay as they are.

    Args:
        stored: the semantic IDs of the stages before.
        items: all items, in the order of their stages: those that have semantic IDs first.
        embedding: the one that the stored semantic IDs were made with.
        quantizer: likewise.
        display: where progress is shown.

    Returns:
        What `tokenize` does, for all items.

    Raises:
        InputError: the stored semantic IDs are of other items, or the new items don't fit into the semantic IDs.
    """
    known = len(stored.items)
    if items.ids[:known] != stored.items:
        raise InputError(f"{stored.folder}: was made for other items; choose another tokenizer.name=NAME")
    kind: Kind = stored.settings["resolve"]
    embeddings = embedding.embed(items, display)
    kinds = alike(items.texts, embeddings)
    codebooks = quantizer.load(stored.tensors())
    given = Given(stored.codes, kinds[:known], stored.level_sizes)
    for stage in range(stored.stages + 1, int(items.stage.max(initial=0)) + 1):
        rows = np.flatnonzero(items.stage == stage)
        codes = encode(codebooks, embeddings[rows])
        given = _give(kind, codebooks, embeddings[rows], codes, kinds[rows], given)
    report = quality(given.codes, given.level_sizes, embeddings, codebooks, items.brands, items.categories, alike=kinds)
    return Tokenized(given.codes, given.level_sizes, codebooks, report)


def _turns(items: Items, fit_on: Literal["stage_1", "all"]) -> Sequence[Numbers]:
    """Return the rows of the items that get semantic IDs together, one group after the other."""
    if fit_on == "all":
        return [np.arange(len(items.ids))]
    return [np.flatnonzero(items.stage == stage) for stage in range(1, int(items.stage.max()) + 1)]


def _give(kind: Kind, codebooks: Codebooks, embeddings: Floats, codes: Codes, kinds: Numbers, given: Given) -> Given:
    """Return the semantic IDs given, and those of more items."""
    return given.with_more(resolve(kind, codebooks, embeddings, codes, kinds, given), kinds)
