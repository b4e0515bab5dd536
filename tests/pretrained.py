"""Small random pretrained models in folders, as a user would download them, and steps of training on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from worlds import INSTRUCT, random_catalog

from peso_cli.artifacts import Artifact
from peso_cli.backbones.build import build_backbone, vocabulary_weights
from peso_cli.backbones.loading import lora_arguments
from peso_cli.config.schema import Lora, PretrainedBackbone
from peso_cli.methods.parts import AdapterStart
from peso_cli.training.checkpoints import trainable
from peso_cli.training.layouts import Batch
from peso_cli.training.steps import label_loss

CATALOG = random_catalog(30, (4, 3, 4))
CODES = 11
LORA = Lora(2, 4.0, 0.0, ("q_proj", "down_proj"))
LAYERS = 2
KINDS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}


def save_tokenizer(folder: Path, begin: bool = True) -> int:
    """Write a byte-level tokenizer that ends texts and, if asked to, begins them; return its size."""
    special = {"eos_token": "</s>", **({"bos_token": "<s>"} if begin else {})}
    tokens = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    plain = Tokenizer(BPE({token: row for row, token in enumerate(tokens)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=plain, **special).save_pretrained(folder)
    return len(tokens)


def save_pretrained(folder: Path, kind: str = "llama", tied: bool = True, padding: int = 0) -> Path:
    """Write a random model with its tokenizer; `padding` rows of its embedding belong to no token."""
    size = save_tokenizer(folder, begin=kind == "llama")
    make_config, make_model = KINDS[kind]
    torch.manual_seed(3)
    config = make_config(
        vocab_size=size + padding,
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        initializer_range=0.1,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=0,
    )
    model = make_model(config)
    with torch.no_grad():
        for weight in vocabulary_weights(model):
            weight += torch.linspace(-0.3, 0.3, 32)  # a mean that isn't zero, as in real models
    model.save_pretrained(folder)
    return folder


def config_of(folder: Path, **changes) -> PretrainedBackbone:
    """The config of a backbone in a folder."""
    plain = PretrainedBackbone("pretrained", "small", str(folder), None, "float32", "new_rows", LORA)
    return replace(plain, **changes)


def built(config, seed: int = 1):
    """Build a backbone for the catalog of this module."""
    return build_backbone(config, INSTRUCT, CATALOG, seed)


def begun(adapter, config, previous: Path | None = None):
    """Build a backbone and begin a stage on it."""
    backbone = built(config)
    torch.manual_seed(7)
    lora = lora_arguments(config, backbone.model, backbone.vocabulary)
    past = () if previous is None else (Artifact(previous.parent),)
    return adapter.begin(AdapterStart(backbone.model, lora, past))


def some_batch(backbone_size: int, seed: int = 0) -> Batch:
    """Random rows with labels of all kinds of tokens."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, backbone_size, (3, 12))
    at = np.array([3, 7, 11, 20, 33])
    return Batch(tokens, at, rng.integers(0, backbone_size, len(at)))


def train_a_little(model, steps: int = 3, learning_rate: float = 0.05):
    """Take a few optimiser steps as a stage does; the model ends in evaluation mode."""
    optimiser = torch.optim.AdamW(trainable(model).values(), lr=learning_rate)
    model.train()
    for step in range(steps):
        torch.manual_seed(step)
        label_loss(model, some_batch(model.config.vocab_size, step), 1.0).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return model.eval()


@torch.no_grad()
def logits_of(model):
    """Logits for a fixed text of old tokens and codes, in evaluation mode."""
    tokens = torch.arange(max(0, model.config.vocab_size - 24), model.config.vocab_size)
    return model.eval()(input_ids=tokens[None]).logits.float()


def end_weights(model):
    """Copies of the (rows, width) values that the embedding and the head work with."""
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    return tuple(end.weight.detach().clone() for end in ends)
