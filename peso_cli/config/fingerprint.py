"""Which settings shape a stage, and the digests that tell one stage from another."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from peso_cli.artifacts import canonical
from peso_cli.config.schema import Config, ConfigBackbone, ReleasedDataset

_LATER_ONLY = ("later_stage_scale", "later_epochs")
_NEVER = ("checkpoint_minutes",)


def base_settings(config: Config, contents: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that shape stage 1, the same for every method that agrees on them.

    Args:
        config: the whole configuration.
        contents: digests that stand in for those settings of the backbone that name files.
    """
    backbone = {**dataclasses.asdict(config.backbone), **contents}
    if isinstance(config.backbone, ConfigBackbone):
        del backbone["lora"]
    trainer = {k: v for k, v in dataclasses.asdict(config.trainer).items() if k not in (*_LATER_ONLY, *_NEVER)}
    return {
        "dataset": _dataset_settings(config),
        "backbone": backbone,
        "prompt": dataclasses.asdict(config.prompt),
        "trainer": trainer,
    }


def later_settings(config: Config, contents: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that shape the stages after the first; `contents` as above."""
    trainer = {k: v for k, v in dataclasses.asdict(config.trainer).items() if k not in _NEVER}
    return {
        **base_settings(config, contents),
        "trainer": trainer,
        "lora": dataclasses.asdict(config.backbone.lora),
        "adapter": _settings(config.adapter),
        "regularizer": _settings(config.regularizer),
        "memory": _settings(config.memory),
    }


def _settings(part: Any) -> dict[str, Any]:
    """Return the fields of a part of the method, which is a dataclass whatever else it is."""
    return dataclasses.asdict(part)


def _dataset_settings(config: Config) -> dict[str, Any]:
    """Where files lie doesn't shape a result; what is in them does, and has a digest of its own."""
    settings = dataclasses.asdict(config.dataset)
    if isinstance(config.dataset, ReleasedDataset):
        del settings["path"]
        if config.dataset.sample_users is None:
            del settings["sample_users"], settings["sample_seed"]
    return settings


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-able value, as hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
