"""Small random encoders in folders, items to embed, and a display that remembers what it was told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from peso_cli.semantic_ids.embeddings.encoder import Encoder
from peso_cli.semantic_ids.parts import Items

WORDS = ("a", "big", "black", "blue", "box", "case", "for", "game", "ink", "of", "paper", "pen", "red", "set", "with")
LONGEST = 24
WIDTH = 16


class Lines:
    """Keeps the lines and the ticks of bars."""

    def __init__(self):
        self.said, self.ticks = [], []

    def say(self, text):
        self.said.append(text)

    def bar(self, title):
        return lambda done, total, note: self.ticks.append((done, total))


def items_of(texts, histories=()) -> Items:
    """Items `i<n>` with these texts, and sequences of stage 1."""
    count = len(texts)
    blank = ("",) * count
    sequences = [np.array(history, dtype=np.int32) for history in histories]
    ids = tuple(f"i{n}" for n in range(count))
    return Items(ids, tuple(texts), blank, blank, np.ones(count, dtype=np.int32), lambda: sequences)


def encoder_of(folder: Path, **changes) -> Encoder:
    """An encoder in a folder, on the CPU."""
    settings = {
        "name": "small",
        "model": str(folder),
        "revision": None,
        "pooling": "mean",
        "max_tokens": LONGEST,
        "normalise": True,
        "batch_tokens": 64,
        "device": "cpu",
    }
    return Encoder(**{**settings, **changes})


def save_encoder(folder: Path, kind: str = "bert") -> Path:
    """Write a random model of a kind with a tokenizer of WORDS; only BERT's has a pad token and marks both ends."""
    size = _save_tokenizer(folder, whole=kind == "bert")
    torch.manual_seed(5)
    shape = {"vocab_size": size, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 24, "max_position_embeddings": LONGEST, "initializer_range": 0.4}
    match kind:
        case "bert":
            model = BertModel(BertConfig(**shape, **more, pad_token_id=0))
        case "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape, **more, bos_token_id=1, eos_token_id=2))
        case _:
            own = {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
            model = T5ForConditionalGeneration(T5Config(vocab_size=size, **own, decoder_start_token_id=0))
    model.save_pretrained(folder)
    return folder


def _save_tokenizer(folder: Path, whole: bool) -> int:
    special = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    words = {word: number for number, word in enumerate((*special, *WORDS))}
    plain = Tokenizer(WordLevel(words, "[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    if whole:
        ends = [("[CLS]", 1), ("[SEP]", 2)]
        plain.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = {"unk_token": "[UNK]", **({"pad_token": "[PAD]"} if whole else {})}
    PreTrainedTokenizerFast(tokenizer_object=plain, **named).save_pretrained(folder)
    return len(words)
