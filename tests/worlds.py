"""Small blocks, catalogs, prompts and models that several tests build their cases from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peso_cli.backbones.vocabulary import Vocabulary, word_vocabulary
from peso_cli.config.schema import PromptTemplate
from peso_cli.data.blocks import Block, block_from_lists
from peso_cli.semantic_ids.catalog import Catalog, token_text

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

COMPACT = PromptTemplate("compact", "{bos}", "{sid}", "", 5)
INSTRUCT = PromptTemplate("instruct", "{bos}Picked so far: ", "{sid}; ", "\nNext: ", 5)


def catalog_of(codes) -> Catalog:
    """A catalog whose item `i<n>` carries row n of the codes."""
    rows = np.asarray(codes, dtype=np.int32)
    return Catalog(tuple(f"i{n}" for n in range(len(rows))), rows, {})


def random_catalog(items: int, sizes: tuple[int, ...], seed: int = 0) -> Catalog:
    """Items of distinct semantic IDs; the largest code of every level occurs, so that the sizes are just these."""
    rng = np.random.default_rng(seed)
    last = int(np.prod(sizes)) - 1
    numbers = np.append(rng.choice(last, items - 1, replace=False), last)
    return catalog_of(np.stack(np.unravel_index(numbers, sizes), axis=1))


def block_of(users: dict[str, tuple[list[int], list[int]]], stage: int = 2) -> Block:
    """A block from each user's (previous, current) catalog indices."""
    return block_from_lists(stage, {u: (_indices(p), _indices(c)) for u, (p, c) in users.items()})


def _indices(items: list[int]):
    return np.array(items, dtype=np.int32)


def vocabulary_of(catalog: Catalog, template: PromptTemplate = COMPACT) -> Vocabulary:
    """A word vocabulary that covers a template."""
    return word_vocabulary(catalog, template.head + template.item.replace("{sid}", " ") + template.tail)


def small_llama(vocabulary: Vocabulary, seed: int = 0, attention: str = "sdpa") -> LlamaForCausalLM:
    """A random Llama whose logits differ enough to be free of ties; two query heads share one key-value head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        initializer_range=0.3,
        bos_token_id=vocabulary.begin,
        eos_token_id=vocabulary.end,
        pad_token_id=vocabulary.pad,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def sid_texts(codes) -> list[str]:
    """The token texts of a semantic ID."""
    return [token_text(level, code) for level, code in enumerate(codes)]


def write_released(folder: Path, index, blocks, texts=None, name: str = "toy") -> Path:
    """Write a folder in the released layout; values are JSON-able, or text to be written as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{name}.all.block_{number}.json": value for number, value in blocks.items()}
    files |= {f"{name}.index.json": index} | ({f"{name}.item.json": texts} if texts is not None else {})
    for file, value in files.items():
        (folder / file).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder
