"""The token ids that prompts and answers are made of, whatever tokenizer they come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from peso_cli.errors import InputError
from peso_cli.semantic_ids.catalog import Catalog, token_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Token ids of a backbone.

    Attributes:
        size: number of token ids.
        begin: id that starts a prompt.
        end: id that ends an answer.
        pad: id that fills up rows; never attended to.
        first_code: (levels,) id of code 0 of each level; code c of level l is `first_code[l] + c`.
        level_sizes: number of codes of each level.
        encode: token ids of template text.
    """

    size: int
    begin: int
    end: int
    pad: int
    first_code: NDArray[np.int64]
    level_sizes: tuple[int, ...]
    encode: Callable[[str], list[int]]

    def sid_tokens(self, codes: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the (n, levels) token ids of (n, levels) codes."""
        return codes + self.first_code

    @property
    def sid_ids(self) -> list[int]:
        """Ids of all semantic-ID tokens, level by level."""
        return [int(f) + c for f, n in zip(self.first_code, self.level_sizes, strict=True) for c in range(n)]


def _first_codes(start: int, level_sizes: tuple[int, ...]) -> NDArray[np.int64]:
    return start + np.concatenate([[0], np.cumsum(level_sizes)[:-1]]).astype(np.int64)


def word_vocabulary(catalog: Catalog, template_text: str) -> Vocabulary:
    """Build a vocabulary of its own for a model made from a config: special tokens, the template's words, the codes."""
    words = sorted(set(_WORD.findall(template_text)))
    ids = {word: 3 + row for row, word in enumerate(words)}
    first = _first_codes(3 + len(words), catalog.level_sizes)

    def encode(text: str) -> list[int]:
        return [ids[word] for word in _WORD.findall(text)]

    size = 3 + len(words) + sum(catalog.level_sizes)
    return Vocabulary(size, 1, 2, 0, first, catalog.level_sizes, encode)


def extended_vocabulary(catalog: Catalog, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """Add the catalog's code tokens to a pretrained tokenizer.

    A tokenizer without a begin token begins prompts with its end token, as such models saw documents in training.

    Raises:
        InputError: the tokenizer already has some of the code tokens, leaves gaps between ids, or has no end token.
    """
    texts = [token_text(level, code) for level, size in enumerate(catalog.level_sizes) for code in range(size)]
    name, known = tokenizer.name_or_path, tokenizer.get_vocab()
    taken = [text for text in texts if text in known]
    if taken:
        raise InputError(f"the tokenizer of {name} already has tokens such as {taken[0]}; use a plain one")
    tokenizer.add_tokens(texts)
    start = max(known.values()) + 1
    if tokenizer.convert_tokens_to_ids(texts) != list(range(start, start + len(texts))):
        raise InputError(f"the tokenizer of {name} leaves gaps between its token ids; use a plain one")
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise InputError(f"the tokenizer of {name} has no end-of-text token")
    begin = tokenizer.bos_token_id if isinstance(tokenizer.bos_token_id, int) else end
    pad = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else end

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    first = _first_codes(start, catalog.level_sizes)
    return Vocabulary(start + len(texts), begin, end, pad, first, catalog.level_sizes, encode)
