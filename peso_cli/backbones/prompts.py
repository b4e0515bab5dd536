"""Prompts: how a history becomes token ids, rendered once per item instead of once per example."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.config.schema import PromptTemplate
from peso_cli.errors import InputError
from peso_cli.semantic_ids.catalog import Catalog

Tokens = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prompt:
    """The rendered parts of a template; a prompt is `head + items[history] + tail`, then comes the answer.

    Attributes:
        head: (h,) tokens before the history.
        items: (items, width) tokens of each item inside a history.
        tail: (t,) tokens after the history.
        answers: (items, levels) tokens of each item as an answer, without the end token.
        end: the token that ends an answer.
        pad: the token that fills up rows.
    """

    head: Tokens
    items: Tokens
    tail: Tokens
    answers: Tokens
    end: int
    pad: int

    @property
    def chains(self) -> bool:
        """Whether an answer looks just like the next item of a history, so that one sequence serves many targets."""
        return not len(self.tail) and self.items.shape == self.answers.shape

    def longest(self, window: int) -> int:
        """Return how many tokens a prompt of `window` items has, with its answer."""
        items: int = window * self.items.shape[1]
        return len(self.head) + items + len(self.tail) + int(self.answers.shape[1])

    def tokens(self, history: NDArray[np.int32]) -> Tokens:
        """Return the token ids of a prompt, from catalog indices of a history, oldest first."""
        return np.concatenate([self.head, self.items[history].reshape(-1), self.tail])


def render(template: PromptTemplate, vocabulary: Vocabulary, catalog: Catalog) -> Prompt:
    """Render a template for a vocabulary and all items of a catalog.

    Raises:
        InputError: the item part doesn't hold {sid} just once, or the head renders to no token.
    """
    if template.item.count("{sid}") != 1:
        raise InputError(f"prompt.item={template.item!r}: must hold {{sid}} just once")
    before, after = (_encode(part, vocabulary) for part in template.item.split("{sid}"))
    answers = vocabulary.sid_tokens(catalog.codes)
    around = [np.broadcast_to(part, (len(answers), len(part))) for part in (before, after)]
    head = _encode(template.head, vocabulary)
    if not len(head):
        raise InputError("prompt.head is empty, so a user without history would have no prompt; start it with {bos}")
    items = np.concatenate([around[0], answers, around[1]], axis=1)
    return Prompt(head, items, _encode(template.tail, vocabulary), answers, vocabulary.end, vocabulary.pad)


def _encode(text: str, vocabulary: Vocabulary) -> Tokens:
    special = {"{bos}": vocabulary.begin, "{end}": vocabulary.end}
    ids: list[int] = []
    for piece in re.split(r"(\{bos\}|\{end\})", text):
        ids += [special[piece]] if piece in special else vocabulary.encode(piece)
    return np.array(ids, dtype=np.int64)
