"""The commands that fill what a table lacks, as they can be pasted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from peso_cli.config.compose import compose, conf_folder, config_folders, group_options, leaves
from peso_cli.errors import InputError
from peso_cli.reports.collected import Record, Split
from peso_cli.reports.model import Gap
from peso_cli.reports.selection import shown_value

_CHOSEN = ("prompt", "adapter", "regularizer", "memory", "tracker")
"""Groups whose choice shows as their `name`."""

_OF_METHOD = re.compile(r"(adapter|regularizer|memory|method|variant)\b.*")
_OF_NO_RESULT = re.compile(
    r"(stage|seed|output|device|method\.name|backbone\.name|dataset\.source|trainer\.checkpoint_(minutes|steps)"
    r"|(evaluation|cleaning|split|embedding|quantizer|tokenizer|experiment)\..*|.*\._target_)"
)


def train_command(like: Record, seed: int, stage: int, method: str | None = None) -> str:
    """Return the command of `training_gap`, as it can be pasted."""
    return str(training_gap(like, seed, stage, method))


def training_gap(like: Record, seed: int, stage: int, method: str | None = None) -> Gap:
    """Return what trains a stage (and those before it) with the settings of a record.

    Args:
        like: what has these settings.
        seed, stage: of what is missing.
        method: another method than the record's; it comes with its own adapter, regularizer and memory.
    """
    return _gap("train", like, [f"stage={stage}", *_words(like, seed, method)])


def scoring_gap(like: Record, seed: int, stages: str, on: Sequence[int] | None = None, split: Split = "test") -> Gap:
    """Return what scores trained stages (`2`, `1..5`) on the users of others, by default on their own.

    Args:
        like: what has the settings.
        seed, stages: of what was trained.
        on: the stages whose users are scored.
        split: which of their examples.
    """
    words = [f"stage={stages}", *_words(like, seed, None)]
    words += [f"evaluation.on={shown_value(list(on))}"] if on is not None else []
    words += [f"evaluation.split={split}"] if split != "test" else []
    return _gap("evaluate", like, words)


def _gap(verb: Literal["train", "evaluate"], like: Record, words: Sequence[str]) -> Gap:
    return Gap(verb, tuple(words), like.config_dir, like.config_dir is None and _unknown_choice(words))


def _words(like: Record, seed: int, method: str | None) -> list[str]:
    other = method is not None and method != like.place.method
    wanted = {key: value for key, value in like.settings.items() if not (other and _OF_METHOD.fullmatch(key))}
    words = _choices(like, method or like.place.method)
    # A path has no default that a composition could do without.
    path = ("dataset.path=.",) * ("dataset.path" in wanted)
    composed = _composed((*words, *path), like.config_dir)
    files = _options(like.config_dir)
    chosen = {group: wanted.get(f"{group}.name") for group in _CHOSEN}
    otherwise = {group: name for group, name in chosen.items() if name != composed.get(f"{group}.name")}
    words += [f"{group}={name}" for group, name in otherwise.items() if name in files.get(group, ())]
    words += _settings(wanted, _composed((*words, *path), like.config_dir))
    return [*words, f"seed={seed}", *_output(like)]


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


def _unknown_choice(words: Sequence[str]) -> bool:
    """Tell whether a choice's file is in a folder of the user's: none that is there by itself has it."""
    choices, files = [word.partition("=")[::2] for word in words], _options(None)
    return any(group in files and choice not in files[group] for group, choice in choices)


def _settings(wanted: Mapping[str, Any], composed: Mapping[str, Any]) -> Iterable[str]:
    """Yield the settings that are other than those composed; all, where it isn't known what would be composed."""
    for key, value in wanted.items():
        other = key in composed and composed[key] != value
        if (other or not composed) and not _OF_NO_RESULT.fullmatch(key):
            yield f"{key}={_quoted(value)}"


def _quoted(value: Any) -> str:
    """Return a value as Hydra reads it back: texts with signs of its grammar are quoted, in lists, too."""
    if isinstance(value, list):
        return f"[{','.join(map(_quoted, value))}]"
    if not isinstance(value, str) or re.fullmatch(r"[\w./-]+", value):
        return shown_value(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'") if "'" in value else value
    return f"'{escaped}'"


@cache
def _options(config_dir: Path | None) -> dict[str, list[str]]:
    return group_options(config_folders(config_dir))


@cache
def _composed(words: tuple[str, ...], config_dir: Path | None) -> Mapping[str, Any]:
    """Return the settings, by dotted key, that words lead to; none where a choice is in a folder that isn't known."""
    try:
        return dict(leaves(compose(words, config_dir).plain))
    except InputError:
        return {}
