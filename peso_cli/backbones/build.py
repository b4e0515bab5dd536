"""Building a backbone: a small Llama from numbers, or a pretrained model whose vocabulary gains the code tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from peso_cli.backbones.prompts import Prompt, render
from peso_cli.backbones.vocabulary import Vocabulary, extended_vocabulary, word_vocabulary
from peso_cli.config.schema import ConfigBackbone, PretrainedBackbone, PromptTemplate
from peso_cli.errors import InputError
from peso_cli.semantic_ids.catalog import Catalog


@dataclass(frozen=True, eq=False)
class Backbone:
    """A causal LM with its vocabulary and the rendered prompt."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    prompt: Prompt


def build_backbone(
    config: ConfigBackbone | PretrainedBackbone, template: PromptTemplate, catalog: Catalog, seed: int
) -> Backbone:
    """Build the backbone in its state before stage 1; everything random comes from `seed`.

    Raises:
        InputError: the numbers don't fit together, or the pretrained model can't be had.
    """
    torch.manual_seed(seed)
    if isinstance(config, ConfigBackbone):
        vocabulary = word_vocabulary(catalog, template.head + template.item.replace("{sid}", " ") + template.tail)
        model: PreTrainedModel = _llama(config, vocabulary)
    else:
        model, vocabulary = _pretrained(config, catalog)
    return Backbone(model, vocabulary, render(template, vocabulary, catalog))


def _llama(config: ConfigBackbone, vocabulary: Vocabulary) -> PreTrainedModel:
    if config.hidden % (2 * config.heads):
        raise InputError(f"backbone.hidden={config.hidden}: must be an even multiple of backbone.heads={config.heads}")
    if config.heads % config.key_value_heads:
        groups = config.key_value_heads
        raise InputError(f"backbone.heads={config.heads}: must be a multiple of backbone.key_value_heads={groups}")
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary.size,
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.key_value_heads,
            intermediate_size=config.feed_forward,
            attention_dropout=config.attention_dropout,
            tie_word_embeddings=config.tie_embeddings,
            bos_token_id=vocabulary.begin,
            eos_token_id=vocabulary.end,
            pad_token_id=vocabulary.pad,
        )
    )


def _pretrained(config: PretrainedBackbone, catalog: Catalog) -> tuple[PreTrainedModel, Vocabulary]:
    where: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model, **where)
        model = AutoModelForCausalLM.from_pretrained(
            config.model, dtype=getattr(torch, config.dtype), use_safetensors=True, **where
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"backbone.model={config.model}: can't be loaded ({first}); give a local folder or a hub name"
        ) from None
    vocabulary = extended_vocabulary(catalog, tokenizer)
    _grow(model, vocabulary)
    return model, vocabulary


def _grow(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Give the code tokens rows near the mean of the old ones, which a model finds easier to move than random rows."""
    known = int(vocabulary.first_code[0])
    if len(model.get_input_embeddings().weight) < vocabulary.size:
        model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight  # type: ignore[no-untyped-call]
    for weight in [inputs] if inputs is outputs else [inputs, outputs]:
        _start_rows(weight, known, vocabulary.size)


@torch.no_grad()
def _start_rows(weight: Any, start: int, stop: int) -> None:
    old = weight[:start].float()
    noise = torch.randn(stop - start, weight.shape[1]) * old.std(0) * 0.5
    weight[start:stop] = (old.mean(0) + noise).to(weight.dtype)
