"""Texts to vectors: what is known comes from the cache, the rest from the model, chunk by chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from peso_cli.artifacts import canonical
from peso_cli.backbones.sources import Source
from peso_cli.errors import InputError
from peso_cli.resources.cache import cache_folder
from peso_cli.semantic_ids.embeddings.vector_cache import VectorCache, text_key
from peso_cli.semantic_ids.parts import Floats, Tick

if TYPE_CHECKING:
    from peso_cli.semantic_ids.embeddings.encoder import Encoder
    from peso_cli.stages import Display

FORMAT: Final = 1
"""Version of what the cache holds: a new one leaves what older versions embedded alone."""

CHUNK: Final = 1024
"""Texts that are embedded between two parts of the cache: an interruption costs no more than these."""


def embed_texts(encoder: Encoder, texts: Sequence[str], stages: Sequence[int], display: Display) -> Floats:
    """Return the (texts, width) vectors of texts, zeros for empty ones.

    Args:
        encoder: the settings.
        texts: what is embedded.
        stages: for each text, the stage from which on it is known.
        display: shows progress.

    Raises:
        InputError: the model can't be had or read, reads fewer tokens than `max_tokens`, or no text is there.
        RunError: the model gives no numbers, or a file of the cache is damaged.
    """
    distinct = {text_key(text): text for text in texts if text}
    if not distinct:
        raise InputError(f"embedding={encoder.name}: no item has a text; use embedding=cooccurrence or embedding=array")
    cache = _cache(encoder)
    missing = distinct.keys() - cache.known()
    empty = texts.count("")
    zeros = f"; {empty} items without text get the zero vector" if empty else ""
    known = len(distinct) - len(missing)
    display.say(f"{encoder.name}: {len(distinct)} distinct texts, {known} of them embedded before{zeros}")
    if missing:
        wanted = {key: text for key, text in distinct.items() if key in missing}
        _fill(cache, encoder, wanted, _first_stages(texts, stages), display)
    rows = [row for row, text in enumerate(texts) if text]
    vectors = cache.vectors([text_key(texts[row]) for row in rows])
    if not empty:
        return vectors
    every = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
    every[rows] = vectors
    return every


def _cache(encoder: Encoder) -> VectorCache:
    """Return where the vectors of this model lie, pooled and cut as the settings say."""
    source = Source("model", encoder.model, encoder.revision)
    try:
        # A hub's name may come to stand for other files; what was downloaded is what counts.
        files = source.digest() or Source("model", source.folder(), None).digest()
    except InputError as error:
        raise _as_embedding(source, error) from None
    settings = [FORMAT, files, encoder.pooling, encoder.max_tokens, encoder.normalise]
    return VectorCache(cache_folder() / "embeddings" / hashlib.sha256(canonical(settings).encode()).hexdigest())


def _as_embedding(source: Source, error: InputError) -> InputError:
    """Name the setting that the user knows: a source speaks of backbones."""
    return InputError(f"embedding.model={source.name}{str(error).removeprefix(str(source))}")


def _first_stages(texts: Sequence[str], stages: Sequence[int]) -> dict[bytes, int]:
    """Return, for each distinct text, the first stage that has it."""
    first: dict[bytes, int] = {}
    for text, stage in zip(texts, stages, strict=True):
        key = text_key(text)
        first[key] = min(stage, first.get(key, stage))
    return first


def _fill(
    cache: VectorCache, encoder: Encoder, texts: dict[bytes, str], stages: dict[bytes, int], display: Display
) -> None:
    """Embed texts chunk by chunk."""
    from peso_cli.semantic_ids.embeddings.text_model import load_text_model

    source = Source("model", encoder.model, encoder.revision)
    model = load_text_model(encoder, source.folder())
    tick, done = display.bar(f"embedding texts with {encoder.name}"), 0
    for chunk in _chunks(texts, stages):
        cache.add(chunk, model.vectors([texts[key] for key in chunk], _counted(tick, done, len(texts))))
        done += len(chunk)


def _chunks(texts: dict[bytes, str], stages: dict[bytes, int]) -> Iterator[list[bytes]]:
    """Yield texts a chunk at a time, longest first, so that a chunk's are alike and too large a batch shows at once.

    No chunk holds texts of two stages: what a later stage brings changes no rounding of an earlier one's vectors.
    """
    for stage in sorted({stages[key] for key in texts}):
        keys = sorted((key for key in texts if stages[key] == stage), key=lambda key: (-len(texts[key]), key))
        yield from (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))


def _counted(tick: Tick, before: int, total: int) -> Callable[[int], None]:
    """Return what moves a bar on by the texts of one chunk."""
    return lambda count: tick(before + count, total, "")
