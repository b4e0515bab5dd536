"""Finished artifacts as records: where each lies, what shaped it, and its figures. The one reader of all reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from peso_cli.artifacts import Artifact, find_artifacts
from peso_cli.errors import InputError, RunError
from peso_cli.reports.shapes import is_mapping, is_metrics, is_setting, is_summary, refuse_unbounded

Figures = Mapping[str, Any]
"""A summary of metrics.json: `recall@5`, ..., and those of `item`, `popularity` and, where known, `ceiling`."""

Split = Literal["test", "valid"]
"""Which example of a user figures are of: the last one, or the one before, on which choices may rest."""

_LAST = 10**6
"""Stages beyond this are damage."""

_DEPTH = 6
"""Parts of a stage's path: dataset, backbone, method, variant, seed, stage."""

BASE = "base"
"""The method under whose name all methods that agree on stage 1 find it."""


@dataclass(frozen=True)
class Place:
    """Where an artifact stands among all others."""

    dataset: str
    backbone: str
    method: str
    variant: str
    seed: int
    stage: int


@dataclass(frozen=True)
class Record:
    """A finished stage with its figures of one protocol.

    Attributes:
        folder: where it lies.
        place: what it is of.
        own: whether the protocol is the one with which the stage was trained.
        metrics: metrics.json, its figures replaced by those of the protocol.
        fingerprint, parent: the digests of what shaped it, and of the stage before it (None for stage 1).
        composition: the names of its method's adapter, regularizer and memory.
        catalog: digest of the items and their semantic IDs.
        blocks: the digests of the blocks that it was trained on, by stage.
        settings: config.yaml by dotted key; decoding.* and prompt.window are those of the protocol.
        config_dir: the user's own config folder, as far as it was given; it isn't recorded.
    """

    folder: Path
    place: Place
    own: bool
    metrics: Mapping[str, Any]
    fingerprint: str
    parent: str | None
    composition: Mapping[str, str]
    catalog: str
    blocks: Mapping[str, str]
    settings: Mapping[str, Any]
    config_dir: Path | None = None

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What must agree for two figures to be comparable."""
        protocol: Mapping[str, Any] = self.metrics["protocol"]
        return protocol

    @property
    def data(self) -> str | None:
        """The digest of all data on which the figures of the stage's own users rest."""
        return self.data_of(self.place.stage)

    @property
    def prompt(self) -> dict[str, Any]:
        """The settings of the prompt."""
        return {key: value for key, value in self.settings.items() if key.startswith("prompt.")}

    def data_of(self, stage: int) -> str | None:
        """Return the digest of all data on which the figures of a stage's users rest; None: not scored on them."""
        digest: str | None = self.metrics.get("data", {}).get(str(stage))
        return digest

    def figures(self, stage: int | None = None, split: Split = "test") -> Figures | None:
        """Return the figures of a stage's users, by default of its own; None where they weren't worked out."""
        found: Figures | None = self.metrics["evaluated"].get(str(stage or self.place.stage), {}).get(split)
        return found

    def groups(self) -> Mapping[str, Figures]:
        """Return the figures of its own test users by user group."""
        found: Mapping[str, Figures] = self.metrics.get("groups", {}).get(str(self.place.stage), {}).get("test", {})
        return found


def collect(output: Path, warn: Callable[[str], None], config_dir: Path | None = None) -> list[Record]:
    """Read all finished artifacts under a folder, in order of their paths; a stage's own protocol comes first.

    Args:
        output: the folder that holds the runs, or any below or above it.
        warn: called with a line for each artifact, or file of other figures, that is damaged or of another version of
            peso and left out.
        config_dir: the user's own config folder that choices may come from.

    Raises:
        InputError: the folder isn't there.
    """
    if not output.is_dir():
        raise InputError(f"--output {output}: no such folder")
    found: list[Record] = []
    for artifact in find_artifacts(output):
        if not artifact.finished:
            continue
        try:
            # What was read before a damaged file of other figures stays.
            for record in _records(artifact, config_dir):
                found.append(record)
        except (RunError, InputError) as error:
            warn(f"left out: {error}")
    return found


def place_of(artifact: Artifact) -> Place:
    """Return what an artifact is of, from its path and its lineage.

    Raises:
        RunError: the folder is none of a stage, or damaged.
    """
    lineage, parts = artifact.lineage(), artifact.folder.resolve().parts
    named = tuple(lineage.get(name) for name in ("method", "seed", "stage"))
    match named:
        case (str(method), int(seed), int(stage)) if len(parts) > _DEPTH and 0 < stage <= _LAST and seed >= 0:
            return Place(parts[-_DEPTH], parts[1 - _DEPTH], method, parts[-3], seed, stage)
    raise _damaged(artifact)


def own_figures(metrics: Mapping[str, Any], artifact: Artifact, stage: int) -> Figures:
    """Return the figures of a stage's own test users.

    Raises:
        RunError: there are none, or one isn't a number.
    """
    found = _inside(metrics, "evaluated", str(stage), "test")
    named = {name: found[name] for name in found if name.startswith(("recall@", "ndcg@"))}
    cutoffs = {name.partition("@")[2] for name in named}
    whole = is_summary(found) and all(f"{kind}@{k}" in named for k in cutoffs for kind in ("recall", "ndcg"))
    if not cutoffs or not whole or any(not isinstance(value, float) for value in named.values()):
        raise _damaged(artifact)
    return found


def _damaged(artifact: Artifact) -> RunError:
    return RunError(f"{artifact.folder}: not the folder of a stage, or a damaged one")


def _inside(value: Any, *keys: str) -> Mapping[str, Any]:
    """Return the mapping that lies under some keys; an empty one where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _records(artifact: Artifact, config_dir: Path | None) -> Iterator[Record]:
    artifact.check_format()
    place, lineage, first = place_of(artifact), artifact.lineage(), artifact.metrics()
    own_figures(first, artifact, place.stage)
    settings = _settings(artifact)
    try:
        fingerprint, parents = lineage["fingerprint"], [parent["fingerprint"] for parent in lineage["parents"]]
        composition, data = dict(lineage["composition"]), lineage["data"]
        catalog, blocks = data["catalog"], dict(data["blocks"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(artifact) from None
    if not all(map(_is_text, (*composition.values(), *blocks.values(), catalog, fingerprint, *parents))):
        raise _damaged(artifact)
    for path in (artifact.folder / "metrics.json", *sorted((artifact.folder / "evaluations").glob("*.json"))):
        metrics = {**first, **artifact.document(path.relative_to(artifact.folder))}
        if not is_metrics(metrics):
            raise RunError(f"{path}: damaged, or of another version")
        yield Record(
            folder=artifact.folder,
            place=place,
            own=path.parent == artifact.folder,
            metrics=metrics,
            fingerprint=fingerprint,
            parent=parents[0] if parents else None,
            composition=composition,
            catalog=catalog,
            blocks=blocks,
            settings={**settings, **_protocol_settings(metrics["protocol"])},
            config_dir=config_dir,
        )


def _protocol_settings(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {protocol_key(name): value for name, value in protocol.items()}


def protocol_key(name: str) -> str:
    """Return the dotted setting that a part of a protocol comes from."""
    return {"window": "prompt.window", "catalog": "dataset.catalog", "seen": "backbone.seen"}.get(
        name, f"decoding.{name}"
    )


def _settings(artifact: Artifact) -> dict[str, Any]:
    path = artifact.folder / "config.yaml"
    try:
        return _by_key(path.read_text(encoding="utf-8"))
    except Exception as error:  # what no YAML writer writes makes its reader fail in many ways
        raise RunError(f"{path}: can't be read ({' '.join(str(error).split())})") from None


@lru_cache(maxsize=512)
def _by_key(text: str) -> dict[str, Any]:
    """Return a YAML document by dotted key; the stages of a run often share one."""
    from peso_cli.config.compose import leaves

    refuse_unbounded(text)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    plain = yaml.load(text, Loader=loader)
    if not isinstance(plain, dict):
        raise TypeError("holds no settings")
    settings = dict(leaves(plain))
    if not is_mapping(settings, is_setting):
        raise TypeError("holds what is no setting")
    return settings


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
