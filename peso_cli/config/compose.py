"""Composing a configuration with Hydra, and turning every way to get it wrong into one line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from peso_cli.characters import is_text
from peso_cli.config.environment import unread_environment
from peso_cli.config.origins import origins_of
from peso_cli.config.parts import PARTS, TARGET, make_part
from peso_cli.config.schema import STAGE_FORMS, Config
from peso_cli.errors import InputError, UnknownKeyError, nearest

_REASONS = {
    "tuple_type": "give a list in brackets",
    "too_short": "the list is empty",
    "string_too_short": "is empty",
}
"""Plainer words for some of pydantic's types of errors."""

SWEEP_GROUPS = ("launcher", "search")
"""Groups of the primary config `sweep`; what belongs to none of them is a run's."""

_PACKAGED = Path(__file__).resolve().parents[1] / "_conf"
_CHECKOUT = Path(__file__).resolve().parents[2] / "conf"


@dataclass(frozen=True)
class Composed:
    """A checked configuration and where it comes from.

    Attributes:
        config: the typed configuration.
        plain: the same as nested dicts and lists, for files.
        choices: group to the chosen file's name.
        overrides: the overrides it was composed of.
        config_dir: the user's own config folder, if one was given.
        grid: the settings that the chosen experiment sweeps over, with their values as Hydra writes them.
    """

    config: Config
    plain: dict[str, Any]
    choices: dict[str, str | None]
    overrides: tuple[str, ...]
    config_dir: Path | None
    grid: dict[str, str]

    @cached_property
    def origins(self) -> dict[str, str]:
        """Dotted key to the file or override that set its value."""
        with _hydra(self.config_dir):
            return origins_of(self.overrides, config_folders(self.config_dir))

    def arguments(self, stage: int) -> list[str]:
        """Return the words that describe the same configuration for another stage on a command line."""
        others = [override for override in self.overrides if not override.startswith("stage=")]
        return [f"stage={stage}", *others, *(["--config-dir", str(self.config_dir)] if self.config_dir else [])]


class _UserFolder(SearchPathPlugin):
    """Puts the user's own config folder in front of the built-in one."""

    folder: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("user", f"file://{self.folder}")


def conf_folder() -> Path:
    """Return the built-in config folder: inside an installed package, or beside it in a checkout."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def config_folders(config_dir: Path | None) -> list[Path]:
    """Return the config folders in the order in which they are searched."""
    return [folder for folder in (config_dir, conf_folder()) if folder]


def group_options(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return each config group with the names of its files."""
    found: dict[str, set[str]] = {}
    for path in (path for folder in folders for path in folder.glob("*/*.yaml")):
        found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> Composed:
    """Compose and check the configuration that Hydra overrides describe.

    Args:
        overrides: such as `stage=3`, `method=peso`, `trainer.epochs=2`; where a key comes twice, the last one counts.
        config_dir: a folder searched before the built-in one.

    Raises:
        InputError: an override can't be read, a key or choice doesn't exist, a value is missing or out of bounds.
    """
    from peso_cli.hybrid.composing import composed_parts

    raw = compose_plain("config", overrides, config_dir)
    whole = Composed(validate(raw.plain), raw.plain, raw.choices, tuple(overrides), config_dir, raw.grid)
    parts = composed_parts(whole)
    return replace(whole, config=validate(raw.plain, parts)) if parts else whole


@dataclass(frozen=True)
class Plain:
    """A composed configuration that isn't checked yet: nested dicts, the choices of groups, an experiment's grid."""

    plain: dict[str, Any]
    choices: dict[str, str | None]
    grid: dict[str, str]


def compose_plain(primary: str, overrides: Sequence[str], config_dir: Path | None = None) -> Plain:
    """Compose one of the primary configs (`config`, `sweep`).

    Raises:
        UnknownKeyError: there is no such key.
        InputError: an override can't be read, a choice doesn't exist, a value is missing.
    """
    groups = group_options(config_folders(config_dir))
    parsed = [parse(text, groups) for text in overrides]
    with _hydra(config_dir):
        try:
            raw, choices, grid = _raw(primary, overrides)
            plain = OmegaConf.to_container(raw, resolve=True)
        except MissingConfigException as error:
            raise InputError(_missing_choice(error, groups)) from None
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            raise _composition_error(str(error), primary, parsed) from None
        except RecursionError:
            raise InputError("a setting is nested too deeply to be read") from None
        except OSError as error:
            raise InputError(f"{error.filename}: can't be read as a configuration ({error.strerror})") from None
    assert isinstance(plain, dict)
    return Plain({str(key): value for key, value in plain.items()}, choices, grid)


def _raw(primary: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str | None], dict[str, str]]:
    """Compose; return the configuration (not yet resolved), the choice made for each group, an experiment's grid."""
    raw = hydra_compose(primary, overrides=list(overrides), return_hydra_config=True)
    choices = {str(group): choice for group, choice in raw.hydra.runtime.choices.items()}
    grid = {str(key): str(values) for key, values in (raw.hydra.sweeper.params or {}).items()}
    OmegaConf.set_struct(raw, False)
    del raw["hydra"]
    return raw, {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}, grid


def validate(plain: Mapping[str, Any], of_hybrid: Mapping[str, Composed] | None = None) -> Config:
    """Check a composed configuration against the schema.

    Args:
        plain: the configuration.
        of_hybrid: the parts, where it is a hybrid's.

    Raises:
        InputError: names the first key that is wrong, its value and what is allowed.
    """
    unset = [key for key, value in leaves(plain) if value == "???"]
    if unset:
        raise InputError(f"{unset[0]} has no value; add {unset[0]}=VALUE")
    if broken := [key for key, value in leaves(plain) if not is_text(str(value))]:
        raise InputError(f"{broken[0]} holds half of a character (a lone surrogate, a name that isn't UTF-8); mend it")
    parts: dict[str, Any] = {}
    errors: list[Mapping[str, Any]] = []
    for group, needed in PARTS.items():
        try:
            parts[group] = make_part(group, plain.get(group), needed)
        except ValidationError as error:
            errors += [{**found, "loc": (group, *found["loc"])} for found in error.errors()]
    try:
        config = TypeAdapter(Config).validate_python(
            {**plain, **dict.fromkeys(PARTS), **parts, "parts": of_hybrid or {}}
        )
    except ValidationError as error:
        errors += error.errors()
    if not errors:
        return config
    messages = list(dict.fromkeys(validation_message(found, plain) for found in errors))
    more = f" (and {len(messages) - 2} more)" if len(messages) > 2 else ""
    raise InputError("; ".join(messages[:2]) + more)


@contextmanager
def _hydra(config_dir: Path | None) -> Iterator[None]:
    if config_dir is not None and not config_dir.is_dir():
        raise InputError(f"--config-dir {config_dir}: no such folder")
    if config_dir is not None and str(config_dir.resolve()) not in sys.path:
        sys.path.append(str(config_dir.resolve()))  # where the modules that its YAMLs name may lie
    Plugins.instance().register(_UserFolder)
    _UserFolder.folder = config_dir.resolve() if config_dir else None
    GlobalHydra.instance().clear()
    try:
        with unread_environment(), initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="peso"):
            yield
    finally:
        _UserFolder.folder = None


def parse(text: str, groups: Mapping[str, Sequence[str]], *, several: bool = False) -> Override:
    """Read an override that sets one key.

    Args:
        text: such as `trainer.epochs=2`.
        groups: the config groups with their choices.
        several: whether it may give several values (`seed=1,2,3`, `range(1,4)`, ...).

    Raises:
        InputError: it can't be read, or is of a kind that isn't allowed.
    """
    if text.startswith("-"):
        raise InputError(f"no such option: {text.partition('=')[0]}; see --help (settings are written KEY=VALUE)")
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except (HydraException, ValueError, RecursionError):
        raise InputError(f"{text!r} can't be read; write KEY=VALUE, such as stage=3 or trainer.epochs=2") from None
    if override.is_sweep_override() and not several:
        raise InputError(f"{text!r} gives several values where one is needed; put lists in brackets: KEY=[1,2]")
    if override.is_delete() or override.is_add() or override.is_force_add() or override.package is not None:
        raise InputError(f"{text!r}: settings can't be added, removed or moved; write KEY=VALUE for one that exists")
    key = override.key_or_group
    if not key:
        raise InputError(f"{text!r} names no key; write KEY=VALUE")
    if re.match(r"hydra\b", key):
        raise InputError(f"{text!r}: Hydra's own settings can't be changed; peso config shows those that can")
    if key in groups and not override.is_sweep_override() and not _names_a_choice(override.value()):
        raise InputError(f"{text}: {key} takes the name of one choice ({', '.join(groups[key])})")
    return override


def _names_a_choice(value: object) -> bool:
    return isinstance(value, str) and "${" not in value


def _missing_choice(error: MissingConfigException, groups: Mapping[str, Sequence[str]]) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return f"the configuration {name!r} can't be found"
    options = groups.get(group, [])
    return f"{group}={name}: no such choice{nearest(name, options)}; there are {', '.join(options)}"


def _composition_error(text: str, primary: str, parsed: Sequence[Override]) -> InputError:
    if match := re.search(r"Could not override '([^']+)'", text):
        return UnknownKeyError(match[1], _unknown_key(match[1], primary, parsed))
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        return InputError(f"{match[1]} has no value; add {match[1]}=VALUE")
    reason = re.sub(r"^\w+ raised while resolving interpolation: ", "", " ".join(text.split()))
    if match := re.search(r" full_key: (\S*) object_type=.*", reason):
        return InputError(f"{match[1]}: {reason[: match.start()]}")
    return InputError(reason)


def _unknown_key(key: str, primary: str, parsed: Sequence[Override]) -> str:
    """Say what stands beside a key that isn't there, and which one it may have been meant to be."""
    if (group := key.partition(".")[0]) in SWEEP_GROUPS and primary == "config":
        return f"{key}: only peso sweep takes settings of {group}"
    known, choices = _known(primary, parsed)
    head, _, last = key.rpartition(".")
    while head and not any(leaf.startswith(f"{head}.") for leaf in known):
        head = head.rpartition(".")[0]
    inside = [leaf.removeprefix(f"{head}.") for leaf in known if not head or leaf.startswith(f"{head}.")]
    beside = [key for key in dict.fromkeys(leaf.partition(".")[0] for leaf in inside) if key != TARGET]
    twins = [leaf for leaf in known if leaf.rpartition(".")[2] == last]
    meant = f" (did you mean {twins[0]}?)" if twins else nearest(last, beside) or nearest(key, () if head else known)
    place = f"{head}={choices[head]} has" if head in choices else f"{head} has" if head else "there are"
    return f"unknown key {key!r}{meant}; {place} {', '.join(beside)}"


def _known(primary: str, parsed: Sequence[Override]) -> tuple[list[str], dict[str, str | None]]:
    """Return the dotted keys and the choices that there are with the overrides of groups alone."""
    groups = [str(o.input_line) for o in parsed if isinstance(o.value(), str) and "." not in o.key_or_group]
    for overrides in (groups, []):
        try:
            raw, choices, _ = _raw(primary, overrides)
        except (HydraException, OmegaConfBaseException, ValueError, OSError, RecursionError):
            continue
        return [leaf for leaf, _ in leaves(OmegaConf.to_container(raw))], choices  # type: ignore[arg-type]
    return [], {}


def leaves(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every setting."""
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def validation_message(error: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """Say in one line what pydantic found wrong with a composed configuration."""
    here: Any = plain
    path: list[str] = []
    for part in error["loc"]:
        # A tag of a union (which adapter, which dataset) is part of the location but not a key.
        if isinstance(here, Mapping) and part in here:
            here = here[part]
            path.append(str(part))
    key, last = ".".join(path), str(error["loc"][-1])
    if error["type"] == "missing":
        return (
            f"{'.'.join([*path, last])} is missing; choose {(*path, last)[0]}=NAME, peso config shows which there are"
        )
    if error["type"] == "unexpected_keyword_argument":
        return f"unknown key {key!r}"
    reason = _REASONS.get(error["type"], str(error["msg"])[:1].lower() + str(error["msg"])[1:])
    if key == "stage":
        reason = STAGE_FORMS
    if isinstance(here, Mapping) and error["type"].startswith("union_tag"):
        return f"{key}: {reason}"
    return f"{key}={here if isinstance(here, str) else json.dumps(here)}: {reason}"
