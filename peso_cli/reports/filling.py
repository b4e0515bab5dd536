"""The commands that fill what a table lacks, as they can be pasted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from peso_cli.config.compose import compose, conf_folder, group_options, leaves
from peso_cli.errors import InputError
from peso_cli.reports.collected import Record
from peso_cli.reports.selection import shown_value

_CHOSEN = ("prompt", "adapter", "regularizer", "memory")
"""Groups whose choice shows as their `name`."""

_OF_METHOD = re.compile(r"(adapter|regularizer|memory|method|variant)\b.*")
_OF_NO_RESULT = re.compile(
    r"(stage|seed|output|device|method\.name|backbone\.name|dataset\.source|trainer\.checkpoint_minutes"
    r"|(evaluation|tracker|cleaning|split|embedding|quantizer|tokenizer|experiment)\..*|.*\._target_)"
)


def train_command(like: Record, seed: int, stage: int, method: str | None = None) -> str:
    """Return the command that trains a stage (and those before it) with the settings of a record.

    Args:
        like: what has these settings.
        seed, stage: of what is missing.
        method: another method than the record's; it comes with its own adapter, regularizer and memory.
    """
    return shlex.join(["peso", "train", f"stage={stage}", *_words(like, seed, method)])


def evaluate_command(like: Record, seed: int, stages: str, on: Sequence[int]) -> str:
    """Return the command that scores trained stages (`2`, `1..5`) on the users of others."""
    words = [f"stage={stages}", *_words(like, seed, None), f"evaluation.on={shown_value(list(on))}"]
    return shlex.join(["peso", "evaluate", *words])


def _words(like: Record, seed: int, method: str | None) -> list[str]:
    other = method is not None and method != like.place.method
    wanted = {key: value for key, value in like.settings.items() if not (other and _OF_METHOD.fullmatch(key))}
    words = _choices(like, method or like.place.method)
    # A path has no default that a composition could do without.
    path = ("dataset.path=.",) * ("dataset.path" in wanted)
    composed = _composed((*words, *path))
    words += [f"{group}={wanted[f'{group}.name']}" for group in _CHOSEN if _chosen_otherwise(group, wanted, composed)]
    words += _settings(wanted, _composed((*words, *path)))
    return [*words, f"seed={seed}", *_output(like), *_own_folder(words)]


def _output(like: Record) -> list[str]:
    """Return the setting of the output folder, where it isn't the one that is there by itself."""
    here, output = Path.cwd(), like.folder.resolve().parents[5]
    if output == here / "outputs":
        return []
    return [f"output={output.relative_to(here) if output.is_relative_to(here) else output}"]


def _choices(like: Record, method: str) -> list[str]:
    """Return the choices of dataset, backbone and method; a dataset with no file of its own is known by its source."""
    name, source = like.place.dataset, like.settings["dataset.source"]
    dataset = [f"dataset={name}"] if _source(name) == source else [f"dataset={source}", f"dataset.name={name}"]
    return [f"method={method}", *dataset, f"backbone={like.place.backbone}"]


@cache
def _source(dataset: str) -> str | None:
    """Return the source that a dataset's config file has; one of the same name may be of the raw interactions."""
    path = conf_folder() / "dataset" / f"{dataset}.yaml"
    source: str | None = yaml.safe_load(path.read_text(encoding="utf-8"))["source"] if path.is_file() else None
    return source


def _own_folder(words: Sequence[str]) -> list[str]:
    """Return the option that a choice needs whose file is in a folder of the user's, which isn't recorded."""
    choices = [word.partition("=")[::2] for word in words]
    own = any(group in _options() and choice not in _options()[group] for group, choice in choices)
    return ["--config-dir", "FOLDER"] if own else []


def _chosen_otherwise(group: str, wanted: Mapping[str, Any], composed: Mapping[str, Any]) -> bool:
    name = wanted.get(f"{group}.name")
    return name is not None and name != composed.get(f"{group}.name") and name in _options().get(group, ())


def _settings(wanted: Mapping[str, Any], composed: Mapping[str, Any]) -> Iterable[str]:
    for key, value in wanted.items():
        if key in composed and composed[key] != value and not _OF_NO_RESULT.fullmatch(key):
            yield f"{key}={_quoted(value)}"


def _quoted(value: Any) -> str:
    """Return a value as Hydra reads it back: texts with signs of its grammar are quoted."""
    if not isinstance(value, str) or re.fullmatch(r"[\w./-]+", value):
        return shown_value(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value else value
    return f"'{escaped}'"


@cache
def _options() -> dict[str, list[str]]:
    return group_options([conf_folder()])


@cache
def _composed(words: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the settings, by dotted key, that words lead to; none where a choice is in a folder of the user's."""
    try:
        return dict(leaves(compose(words).plain))
    except InputError:
        return {}
