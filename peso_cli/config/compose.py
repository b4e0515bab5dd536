"""Composing a configuration with Hydra, and turning every way to get it wrong into one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from peso_cli.config.origins import origins_of
from peso_cli.config.schema import Config
from peso_cli.errors import InputError, nearest

_PACKAGED = Path(__file__).resolve().parents[1] / "_conf"
_CHECKOUT = Path(__file__).resolve().parents[2] / "conf"


@dataclass(frozen=True)
class Composed:
    """A checked configuration and where it comes from.

    Attributes:
        config: the typed configuration.
        plain: the same as nested dicts and lists, for files.
        choices: group to the chosen file's name.
        origins: dotted key to the file or override that set its value.
    """

    config: Config
    plain: dict[str, Any]
    choices: dict[str, str | None]
    origins: dict[str, str]


class _UserFolder(SearchPathPlugin):
    """Puts the user's own config folder in front of the built-in one."""

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("user", f"file://{self.folder}")


def conf_folder() -> Path:
    """Return the built-in config folder: inside an installed package, or beside it in a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> Composed:
    """Compose and check the configuration that Hydra overrides describe.

    Args:
        overrides: such as `stage=3`, `method=peso`, `trainer.epochs=2`.
        config_dir: a folder searched before the built-in one.

    Raises:
        InputError: an override can't be read, a key or choice doesn't exist, a value is missing or out of bounds.
    """
    parsed = _parse(overrides)
    with _hydra(config_dir):
        try:
            raw = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
            choices = dict(raw.hydra.runtime.choices)
            OmegaConf.set_struct(raw, False)
            del raw["hydra"]
            plain = OmegaConf.to_container(raw, resolve=True)
            origins = origins_of(list(overrides), [f for f in (config_dir, conf_folder()) if f])
        except MissingConfigException as error:
            raise InputError(_missing_choice(error)) from None
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise InputError(_composition_message(str(error), parsed)) from None
    assert isinstance(plain, dict)
    chosen = {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
    checked = validate({str(key): value for key, value in plain.items()})
    return Composed(checked, plain, chosen, origins)  # type: ignore[arg-type]


def validate(plain: Mapping[str, Any]) -> Config:
    """Check a composed configuration against the schema.

    Raises:
        InputError: names the first key that is wrong, its value and what is allowed.
    """
    unset = [key for key, value in _leaves(plain) if value == "???"]
    if unset:
        raise InputError(f"{unset[0]} has no value; add {unset[0]}=VALUE")
    try:
        return TypeAdapter(Config).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(_validation_message(first, plain) + more) from None


@contextmanager
def _hydra(config_dir: Path | None) -> Iterator[None]:
    if config_dir is not None and not config_dir.is_dir():
        raise InputError(f"--config-dir {config_dir}: no such folder")
    Plugins.instance().register(_UserFolder)
    _UserFolder.folder = config_dir.resolve() if config_dir else None
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="peso"):
            yield
    finally:
        _UserFolder.folder = None


def _parse(overrides: Sequence[str]) -> list[Override]:
    parsed = []
    for text in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([text])
        except (HydraException, ValueError):
            raise InputError(f"{text!r} can't be read; write KEY=VALUE, such as stage=3 or trainer.epochs=2") from None
        if override.is_sweep_override():
            raise InputError(f"{text!r} gives several values where one is needed; put lists in brackets: KEY=[1,2]")
        if override.is_delete() or override.is_add() or override.is_force_add():
            raise InputError(f"{text!r}: settings can't be added or removed; write KEY=VALUE for one that exists")
        if not override.key_or_group:
            raise InputError(f"{text!r} names no key; write KEY=VALUE")
        parsed.append(override)
    return parsed


def _missing_choice(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = list(error.options or [])
    if not group:
        return f"the configuration {name!r} can't be found"
    return f"{group}={name}: no such choice{nearest(name, options)}; there are {', '.join(options)}"


def _composition_message(text: str, parsed: Sequence[Override]) -> str:
    match = re.search(r"Could not override '([^']+)'", text)
    if not match:
        return " ".join(text.split())
    key = match[1].partition("@")[0]
    groups = [o.key_or_group + "=" + str(o.value()) for o in parsed if isinstance(o.value(), str)]
    known = [leaf for leaf, _ in _leaves(_without(parsed, key))]
    head = key.rpartition(".")[0]
    siblings = [leaf.removeprefix(f"{head}.") for leaf in known if head and leaf.startswith(f"{head}.")]
    chosen = next((g for g in groups if g.startswith(f"{head}=")), head)
    rest = f"; {chosen} has {', '.join(siblings)}" if siblings else ""
    return f"unknown key {key!r}{nearest(key, known + sorted({k.split('.')[0] for k in known}))}{rest}"


def _without(parsed: Sequence[Override], key: str) -> Mapping[str, Any]:
    """Compose with the choices of groups alone, to know which keys there are."""
    choices = [o.input_line for o in parsed if "." not in o.key_or_group and o.key_or_group != key and o.input_line]
    try:
        plain = OmegaConf.to_container(hydra_compose("config", overrides=choices))
    except (HydraException, OmegaConfBaseException, ValueError):
        plain = OmegaConf.to_container(hydra_compose("config"))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _leaves(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _validation_message(error: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    here: Any = plain
    path: list[str] = []
    for part in error["loc"]:
        # A tag of a union (which adapter, which dataset) is part of the location but not a key.
        if isinstance(here, Mapping) and part in here:
            here = here[part]
            path.append(str(part))
    key = ".".join(path)
    reason = str(error["msg"])[:1].lower() + str(error["msg"])[1:]
    if error["type"] == "missing":
        return f"{key}.{error['loc'][-1]} is missing; was the group chosen from conf/?"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if isinstance(here, Mapping):
        return f"{key}: {reason}"
    return f"{key}={here}: {reason}"
