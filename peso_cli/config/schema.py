"""What a configuration may say: one dataclass for each group of `conf/`, checked when a config is composed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator
from pydantic.dataclasses import dataclass

from peso_cli.config.types import (
    STRICT,
    FolderName,
    Fraction,
    Natural,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Rate,
    Scale,
)
from peso_cli.data.raw import BuiltDataset, Cleaning, RawDataset, Split
from peso_cli.data.synthetic import SyntheticDataset
from peso_cli.hybrid.settings import Hybrid
from peso_cli.methods.parts import Adapter, Memory, Regularizer
from peso_cli.semantic_ids.parts import Embedding, Quantizer
from peso_cli.semantic_ids.settings import Tokenizer
from peso_cli.two_tower.settings import Bpr, LightGcn, SasRec

Stages = Annotated[tuple[Positive, ...], Field(min_length=1)]

_MADE = PlainValidator(lambda part: part)
"""Parts are checked by their own classes when they are made."""

STAGE_FORMS = "give a number, several (1..3 or [1,3]) or all"
"""What `stage=` takes, in words."""


@dataclass(frozen=True, config=STRICT)
class ReleasedDataset:
    """A folder of stage blocks in the released layout.

    Attributes:
        source: marks the dataset as released.
        name: its name in paths and tables.
        path: the folder.
        catalog: the items that are recommended at a stage: those with events by then (`visible`), or `all`.
        sample_users: most users of each stage that take part; None for all.
        sample_seed: seed of the order in which users are taken, the same order in every stage.
    """

    source: Literal["released"]
    name: FolderName
    path: str
    catalog: Literal["visible", "all"] = "all"
    sample_users: Positive | None = None
    sample_seed: Natural = 1


@dataclass(frozen=True, config=STRICT)
class Lora:
    """The shape of the adapter: rank, alpha (scaling is alpha / rank), dropout and the modules it enters."""

    rank: Positive
    alpha: PositiveFloat
    dropout: Fraction
    targets: Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class ConfigBackbone:
    """A Llama-architecture model built from numbers, trained in full in stage 1 and frozen after it.

    `tokenizer` is null for a vocabulary of its own (the codes and the prompt's words), or names a fetched resource, a
    folder or a model of the hub, whose tokenizer's whole vocabulary it then has beside the codes.
    """

    source: Literal["config"]
    name: FolderName
    hidden: Positive
    layers: Positive
    heads: Positive
    key_value_heads: Positive
    feed_forward: Positive
    attention_dropout: Fraction
    tie_embeddings: bool
    lora: Lora
    tokenizer: str | None = None


@dataclass(frozen=True, config=STRICT)
class PretrainedBackbone:
    """A Hugging Face causal LM; LoRA in every stage.

    `model` names it. The names that `peso fetch` shows are reserved for what it brings into its cache (a folder of
    such a name is written ./NAME); any other name is a folder if there is one, else a model of the hub, at `revision`.
    """

    source: Literal["pretrained"]
    name: FolderName
    model: str
    revision: str | None
    dtype: Literal["float32", "bfloat16"]
    trained_rows: Literal["new_rows", "full"]
    lora: Lora


@dataclass(frozen=True, config=STRICT)
class PromptTemplate:
    """The text around a history: `head`, then for each item `item` with {sid} in it, then `tail`, then the answer.

    {bos} and {end} stand for the backbone's begin and end tokens. `window` is the most items of a history.
    """

    name: FolderName
    head: str
    item: str
    tail: str
    window: Positive


@dataclass(frozen=True, config=STRICT)
class Method:
    """The name under which a composition of adapter, regularizer and memory is stored and shown."""

    name: FolderName


@dataclass(frozen=True, config=STRICT)
class Trainer:
    """How a stage trains.

    Attributes:
        epochs: most epochs per stage; training ends sooner when validation stops improving.
        later_epochs: most epochs from stage 2 on, if fewer.
        learning_rate: peak learning rate of stage 1.
        later_stage_scale: factor on the learning rate from stage 2 on.
        batch_tokens: most padded tokens of a batch.
        accumulation: batches per optimiser step.
        warmup: share of the steps over which the learning rate rises; it falls along a cosine after that.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: largest norm of the gradient.
        temperature: divides the logits in training.
        patience: epochs without a better validation cross-entropy after which a stage ends.
        packing: `auto` chains a user's examples where the prompt allows it; `example` is the reference path.
        validation_users: most users whose validation cross-entropy is taken (a seeded sample), for speed.
        checkpoint_minutes: time between checkpoints inside an epoch.
        checkpoint_steps: optimiser steps between checkpoints inside an epoch; None: only time counts.
        shard: what several processes spread over them: `frozen` weights of the layers, for backbones that are too large
            for one device beside what training takes. Changes memory and speed, not results.
    """

    epochs: Natural
    later_epochs: Natural
    learning_rate: Rate
    later_stage_scale: Scale
    batch_tokens: Positive
    accumulation: Positive
    warmup: Fraction
    weight_decay: NonNegativeFloat
    clip_norm: PositiveFloat
    temperature: PositiveFloat
    patience: Positive
    packing: Literal["auto", "example"]
    validation_users: Positive
    checkpoint_minutes: NonNegativeFloat
    checkpoint_steps: Positive | None = None
    shard: Literal["none", "frozen"] = "none"


@dataclass(frozen=True, config=STRICT)
class Decoding:
    """Constrained beam search: how wide, within what, over what the probabilities are normalised.

    Attributes:
        beams: width of the beam.
        constraint: `trie` yields only real items; `positional` allows any code of the right level (the paper's).
        normalise: `vocabulary` scores as a plain search does; `vocabulary_bfloat16` takes the logits of the words that
            are neither codes nor the end token in bfloat16; `level` normalises over the codes of each level.
        batch_tokens: most tokens (prompts, and room for the codes of their beams) held at once; None takes what the
            memory has room for. Changes speed and memory, not results.
        top_k: recommendations per user, and the largest K of the figures.
    """

    beams: Positive
    constraint: Literal["trie", "positional"]
    normalise: Literal["vocabulary", "vocabulary_bfloat16", "level"]
    batch_tokens: Positive | None = None
    top_k: Positive = 10


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """Whom a trained stage is scored on.

    Attributes:
        on: with `in_stage`, the stages whose users are asked; None for its own.
        split: which of their events are asked for; `next_stage` asks for none of these.
        protocol: `in_stage` leaves each user's last events of a stage out (the paper's), `matrix` does so in every
            stage of the dataset, `next_stage` asks for the first events of the stage that the model doesn't know yet.
    """

    on: Stages | None
    split: Literal["test", "valid"]
    protocol: Literal["in_stage", "next_stage", "matrix"] = "in_stage"


@dataclass(frozen=True, config=STRICT)
class TrackerConfig:
    """Where curves and results go besides the run folder."""

    name: Literal["wandb", "none"]
    project: Annotated[str, Field(pattern=r"^[^/\\\\#?%:]{1,128}$")]
    mode: Literal["offline", "online"]
    entity: str | None
    samples: Natural


@dataclass(frozen=True, config=STRICT)
class Config:
    """Everything a command can be told, and what follows from it.

    Attributes:
        parts: of a hybrid, the configurations (`Composed`) of its parts by their roles; else empty.
    """

    stage: Annotated[int, Field(strict=True)] | str | Stages
    seed: Natural
    dataset: Annotated[ReleasedDataset | SyntheticDataset | BuiltDataset | RawDataset, Field(discriminator="source")]
    backbone: Annotated[
        ConfigBackbone | PretrainedBackbone | Bpr | LightGcn | SasRec | Hybrid, Field(discriminator="source")
    ]
    prompt: PromptTemplate
    method: Method
    adapter: Annotated[Adapter, _MADE]
    regularizer: Annotated[Regularizer, _MADE]
    memory: Annotated[Memory, _MADE]
    trainer: Trainer
    decoding: Decoding
    evaluation: Evaluation
    tracker: TrackerConfig
    cleaning: Cleaning
    split: Split
    embedding: Annotated[Embedding, _MADE]
    quantizer: Annotated[Quantizer, _MADE]
    tokenizer: Tokenizer
    output: Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
    variant: FolderName | None
    device: Literal["auto", "cpu", "cuda"]
    parts: Annotated[Mapping[str, Any], _MADE] = field(default_factory=dict)
