"""Where each value of a configuration comes from: which file of which folder, or the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf


def origins_of(overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
    """Return dotted key to the config file, such as `method/peso`, or the override that set it last.

    Must be called while Hydra is initialised.

    Args:
        overrides: Hydra overrides.
        folders: config folders, the first one searched first.
    """
    hydra = GlobalHydra.instance()
    defaults = hydra.config_loader().compute_defaults_list("config", list(overrides), RunMode.RUN)
    origins: dict[str, str] = {}
    for entry in defaults.defaults:
        path = _find(entry.config_path, folders)
        if path is None:
            continue
        content = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(content, dict)
        content.pop("defaults", None)
        content.pop("hydra", None)
        prefix = f"{entry.package}." if entry.package else ""
        origins.update({f"{prefix}{key}": str(entry.config_path) for key in _keys(content)})
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key, value = override.key_or_group, override.value()
        if key in origins or "." in key:
            inner = [f"{key}.{name}" for name in _keys(value)] if isinstance(value, Mapping) else [key]
            origins.update(dict.fromkeys(inner, f"override {override.input_line}"))
    return origins


def _find(name: str | None, folders: Sequence[Path]) -> Path | None:
    paths = [folder / f"{name}.yaml" for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def _keys(content: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{key}.{inner}" for inner in _keys(value))
        else:
            yield str(key)
