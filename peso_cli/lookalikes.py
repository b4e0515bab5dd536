"""Finished stages that differ from a wanted one in few settings: what to give to be led to them.

Defaults may change from one version of peso to the next; what was trained before is then found by giving the old ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from peso_cli.artifacts import Artifact
from peso_cli.config.compose import leaves, validate
from peso_cli.config.fingerprint import base_settings, later_settings
from peso_cli.config.schema import Config
from peso_cli.errors import InputError

_MOST = 3
"""Stages that differ in more settings are others, not the same under another default."""

_NOTHING = object()
"""What a setting is that isn't there."""


def lookalike(artifact: Artifact, config: Config, contents: Mapping[str, str]) -> str:
    """Say which finished stage is nearly a wanted one, and which settings lead to it; empty where there is none.

    Args:
        artifact: where the wanted stage would lie.
        config: the settings that lead there.
        contents: digests of the files that the backbone starts from.
    """
    first = artifact.folder.name == "stage_1"
    wanted = _shaping(config, contents, first)
    found = [(_other(wanted, theirs), folder) for folder, theirs in _beside(artifact, contents, first)]
    near = [(differing, folder) for differing, folder in found if _near(differing)]
    if not near:
        return ""
    differing, folder = min(near, key=lambda pair: (len(pair[0]), str(pair[1])))
    return f"; to use {folder}, give {' '.join(_override(key, value) for key, value in differing.items())}"


def _beside(artifact: Artifact, contents: Mapping[str, str], first: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the finished stages of other variants in the same place, with the settings that shaped them."""
    stage, seed = artifact.folder.name, artifact.folder.parent.name
    for folder in sorted(artifact.folder.parents[2].glob(f"*/{seed}/{stage}")):
        if Artifact(folder).finished and folder != artifact.folder:
            try:
                plain = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
                yield folder, _shaping(validate(plain), contents, first)
            except (InputError, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
                continue  # damaged, or of a version with other settings


def _shaping(config: Config, contents: Mapping[str, str], first: bool) -> dict[str, Any]:
    """Return the settings that shape a stage, by the key under which they are given."""
    settings = base_settings(config, contents) if first else later_settings(config, contents)
    if "lora" in settings:
        settings["backbone"] = {**settings["backbone"], "lora": settings.pop("lora")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in leaves(settings)}


def _other(wanted: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of their settings that are others."""
    return {key: value for key, value in theirs.items() if wanted.get(key, _NOTHING) != value}


def _near(differing: Mapping[str, Any]) -> bool:
    """Tell whether a few overrides make up for a difference; they can't choose another part, or change its code."""
    return 0 < len(differing) <= _MOST and not any(key.endswith((".name", ".code")) for key in differing)


def _override(key: str, value: Any) -> str:
    """Return a setting as it is given on the command line."""
    if isinstance(value, str):
        return f"{key}={value}" if re.fullmatch(r"[\w./-]+", value) else f"{key}='{value}'"
    return f"{key}={json.dumps(value, separators=(',', ':'))}"
