"""Which settings shape a stage, and the digests that tell one stage from another."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peso_cli.artifacts import canonical
from peso_cli.config.schema import Config, ConfigBackbone, PretrainedBackbone, ReleasedDataset
from peso_cli.data.raw import BuiltDataset
from peso_cli.files import sha256
from peso_cli.hybrid.settings import PARTS, Hybrid
from peso_cli.two_tower.settings import Bpr, LightGcn

_LATER_ONLY = ("later_stage_scale", "later_epochs")
_NEVER = ("checkpoint_minutes", "checkpoint_steps", "shard")


def base_settings(config: Config, contents: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that shape stage 1, the same for every method that agrees on them.

    Args:
        config: the whole configuration.
        contents: digests that stand in for those settings of the backbone that name files.
    """
    if isinstance(config.backbone, Hybrid):
        return _hybrid_settings(config, config.backbone)
    backbone = {**dataclasses.asdict(config.backbone), **contents}
    if not isinstance(config.backbone, PretrainedBackbone):
        for key in _later_of_backbone(config):
            del backbone[key]
    trainer = {k: v for k, v in dataclasses.asdict(config.trainer).items() if k not in (*_LATER_ONLY, *_NEVER)}
    return {
        "dataset": _dataset_settings(config),
        "backbone": backbone,
        "prompt": dataclasses.asdict(config.prompt),
        "trainer": trainer,
    }


def later_settings(config: Config, contents: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that shape the stages after the first; `contents` as above."""
    if isinstance(config.backbone, Hybrid):
        return _hybrid_settings(config, config.backbone)
    trainer = {k: v for k, v in dataclasses.asdict(config.trainer).items() if k not in _NEVER}
    return {
        **base_settings(config, contents),
        "trainer": trainer,
        **{key: dataclasses.asdict(config.backbone)[key] for key in _later_of_backbone(config)},
        "adapter": _settings(config.adapter),
        "regularizer": _settings(config.regularizer),
        "memory": _settings(config.memory),
    }


def _hybrid_settings(config: Config, backbone: Hybrid) -> dict[str, Any]:
    """Return what shapes the choice of a fusion; the settings of the parts are in the fingerprints of their stages."""
    decoding = {k: v for k, v in dataclasses.asdict(config.decoding).items() if k != "batch_tokens"}
    return {
        "dataset": _dataset_settings(config),
        "backbone": {k: v for k, v in dataclasses.asdict(backbone).items() if k not in PARTS},
        "prompt": dataclasses.asdict(config.prompt),
        "decoding": decoding,
    }


def _later_of_backbone(config: Config) -> tuple[str, ...]:
    """Return the settings of the backbone that shape later stages; but for pretrained ones they don't shape stage 1."""
    match config.backbone:
        case ConfigBackbone() | PretrainedBackbone():
            return ("lora",)
        case Bpr() | LightGcn():
            return ("cold_start",)
        case _:
            return ()


def _settings(part: Any) -> dict[str, Any]:
    """Return what a part of the method is: its fields and, where its class is a user's own, the file with its code.

    Code of the package has versions; a user's may have been another when the same settings were trained before.
    """
    module = type(part).__module__
    own = module.partition(".")[0] != __name__.partition(".")[0]
    file = sys.modules[module].__file__ if own else None
    return {**dataclasses.asdict(part), **({"code": sha256(Path(file))} if file else {})}


def _dataset_settings(config: Config) -> dict[str, Any]:
    """Where files lie doesn't shape a result; what is in them does, and has a digest of its own."""
    settings = dataclasses.asdict(config.dataset)
    if not isinstance(config.dataset, ReleasedDataset | BuiltDataset):
        return settings
    # What has its default was not there to choose once, or is known by the digests of catalog and blocks.
    unset = {"path"} | ({"sample_users", "sample_seed"} if config.dataset.sample_users is None else set())
    unset |= {"catalog"} if config.dataset.catalog == "all" else set()
    return {key: value for key, value in settings.items() if key not in unset | {"semantic_ids"}}


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, as hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
