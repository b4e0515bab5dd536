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
from peso_cli.config.compose import Composed, leaves
from peso_cli.config.fingerprint import base_settings, later_settings
from peso_cli.reports.shapes import refuse_unbounded

_MOST = 3
"""Stages that differ in more settings are others, not the same under another default."""


def lookalike(artifact: Artifact, composed: Composed, contents: Mapping[str, str]) -> str:
    """Say which finished stage is nearly a wanted one, and which settings lead to it; empty where there is none.

    Args:
        artifact: where the wanted stage would lie.
        composed: the configuration that leads there.
        contents: digests of the files that the backbone starts from.
    """
    shaping = _shaping(composed, contents, first=artifact.folder.name == "stage_1")
    found = [(_other(shaping, theirs), folder) for folder, theirs in _beside(artifact)]
    near = [(differing, folder) for differing, folder in found if _near(differing)]
    if not near:
        return ""
    differing, folder = min(near, key=lambda pair: (len(pair[0]), str(pair[1])))
    return f"; to use {folder}, give {' '.join(_override(key, value) for key, value in differing.items())}"


def _beside(artifact: Artifact) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the finished stages of other variants in the same place, with their settings."""
    stage, seed = artifact.folder.name, artifact.folder.parent.name
    for folder in sorted(artifact.folder.parents[2].glob(f"*/{seed}/{stage}")):
        if Artifact(folder).finished and folder != artifact.folder:
            try:
                text = (folder / "config.yaml").read_text(encoding="utf-8")
                refuse_unbounded(text)
                yield folder, dict(leaves(yaml.safe_load(text)))
            except (OSError, ValueError, AttributeError, yaml.YAMLError):
                continue  # whoever asks for a damaged stage is told


def _shaping(composed: Composed, contents: Mapping[str, str], first: bool) -> dict[str, Any]:
    """Return the settings that shape a stage, as they were given, by dotted key."""
    settings = (base_settings if first else later_settings)(composed.config, contents)
    if "lora" in settings:
        settings["backbone"] = {**settings["backbone"], "lora": settings.pop("lora")}
    given = dict(leaves(composed.plain))
    return {key: given.get(key) for key, _ in leaves(settings)}


def _other(shaping: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of their settings that are others; what had no such setting yet can't be told by it."""
    return {key: theirs[key] for key, value in shaping.items() if key in theirs and theirs[key] != value}


def _near(differing: Mapping[str, Any]) -> bool:
    """Tell whether a few overrides make up for a difference; they can't choose another part."""
    return 0 < len(differing) <= _MOST and not any(key.endswith(".name") for key in differing)


def _override(key: str, value: Any) -> str:
    """Return a setting as it is given on the command line."""
    if isinstance(value, str):
        return f"{key}={value}" if re.fullmatch(r"[\w./-]+", value) else f"{key}='{value}'"
    return f"{key}={json.dumps(value, separators=(',', ':'))}"
