"""Building a backbone: a small Llama from numbers, or a pretrained model whose vocabulary gains the code tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from peso_cli.backbones.attention import packs
from peso_cli.backbones.prompts import Prompt, render
from peso_cli.backbones.sources import Source, source_of
from peso_cli.backbones.vocabulary import Vocabulary, extended_vocabulary, word_vocabulary
from peso_cli.config.schema import ConfigBackbone, PretrainedBackbone, PromptTemplate
from peso_cli.errors import InputError
from peso_cli.hybrid.settings import Hybrid
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.two_tower.settings import TwoTower


@dataclass(frozen=True, eq=False)
class Backbone:
    """A causal LM with its vocabulary and the rendered prompt."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    prompt: Prompt


def build_backbone(
    config: ConfigBackbone | PretrainedBackbone | TwoTower | Hybrid,
    template: PromptTemplate,
    catalog: Catalog,
    seed: int,
) -> Backbone:
    """Build the backbone in its state before stage 1; everything random comes from `seed`.

    Raises:
        InputError: it is no language model, the numbers don't fit together, or the pretrained model can't be had.
    """
    if isinstance(config, TwoTower | Hybrid):
        what = "a hybrid" if isinstance(config, Hybrid) else "a two-tower model"
        raise InputError(f"backbone={config.name}: is {what}, this takes a language model, such as tiny")
    torch.manual_seed(seed)
    if isinstance(config, ConfigBackbone):
        vocabulary = _vocabulary(config, template, catalog)
        model: PreTrainedModel = _llama(config, vocabulary)
        return Backbone(model, vocabulary, render(template, vocabulary, catalog))
    model, vocabulary = _pretrained(config, catalog)
    prompt = render(template, vocabulary, catalog)
    if not packs(model, prompt.longest(template.window)):
        raise InputError(
            f"backbone.model={config.model}: its attention (a sliding window, capped scores, a kind of its own) can't "
            "take sequences side by side in one row; give another model, or a smaller prompt.window"
        )
    return Backbone(model, vocabulary, prompt)


def _vocabulary(config: ConfigBackbone, template: PromptTemplate, catalog: Catalog) -> Vocabulary:
    source = source_of(config)
    if source is None:
        return word_vocabulary(catalog, " ".join([template.head, template.item.replace("{sid}", " "), template.tail]))
    return extended_vocabulary(catalog, _load("tokenizer", source, AutoTokenizer, source.folder()))


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
    source = Source("model", config.model, config.revision)
    folder = source.folder()
    tokenizer = _load("tokenizer", source, AutoTokenizer, folder)
    model, report = _load(
        "model",
        source,
        AutoModelForCausalLM,
        folder,
        dtype=getattr(torch, config.dtype),
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    unfit = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if unfit:
        raise InputError(f"backbone.model={config.model}: its files hold no fitting {min(unfit)}; give a whole model")
    _check_causal(model, config.model)
    model.name_or_path = config.model
    # Nothing here samples, and a checkpoint's own settings can be such that they can't be saved again.
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    vocabulary = extended_vocabulary(catalog, tokenizer)
    _grow(model, vocabulary)
    return model, vocabulary


def _load(part: str, source: Source, auto: Any, folder: str, **how: Any) -> Any:
    try:
        return auto.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **how)
    except Exception as error:  # the loaders raise whatever a broken file makes them stumble over
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(" .:")
        raise InputError(f"{source}: the {part} can't be loaded ({reason})") from None


@torch.no_grad()
def _check_causal(model: PreTrainedModel, name: str) -> None:
    """Refuse a broken model, one that looks ahead, or one whose logits aren't just its head's, which is all we use."""
    tokens, others = torch.tensor([[0, 1]]), torch.tensor([[0, 2]])
    logits = model(input_ids=tokens).logits
    if not torch.isfinite(logits).all():
        raise InputError(f"backbone.model={name}: its logits are not finite numbers; give a model with whole weights")
    if not torch.allclose(logits[:, 0], model(input_ids=others).logits[:, 0]):
        raise InputError(f"backbone.model={name}: looks at later tokens; give a causal language model")
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    hidden = model.get_decoder()(input_ids=tokens).last_hidden_state  # type: ignore[no-untyped-call]
    if not torch.allclose(logits, head(hidden)):
        raise InputError(f"backbone.model={name}: changes the logits behind its head; give a model that doesn't")


def vocabulary_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """Return the (rows, width) weights of the embedding and of the head: just one where they are tied."""
    inputs: Any = model.get_input_embeddings()
    outputs: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return [inputs.weight] if inputs.weight is outputs.weight else [inputs.weight, outputs.weight]


def _grow(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Give the code tokens rows near the mean of the old ones, which a model finds easier to move than random rows."""
    weights = vocabulary_weights(model)
    # A checkpoint with a head of its own stays untied whatever its config says; resizing and peft go by the config.
    model.config.tie_word_embeddings = len(weights) == 1
    if len(weights[0]) < vocabulary.size:
        model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    for weight in vocabulary_weights(model):
        _start_rows(weight, int(vocabulary.first_code[0]), vocabulary.size)


@torch.no_grad()
def _start_rows(weight: nn.Parameter, start: int, stop: int) -> None:
    old = weight[:start].float()
    noise = torch.randn(stop - start, weight.shape[1]) * old.std(0) * 0.5
    weight[start:stop] = (old.mean(0) + noise).to(weight.dtype)
