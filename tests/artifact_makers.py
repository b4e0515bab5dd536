"""Finished artifacts as small files, without any training: what tables and reports are made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from peso_cli.config.compose import compose

FIGURES = ("recall@1", "recall@5", "recall@10", "ndcg@1", "ndcg@5", "ndcg@10")
PROTOCOL = {"constraint": "trie", "beams": 30, "normalise": "vocabulary", "top_k": 10, "window": 20}


@cache
def settings(*words: str) -> str:
    """The settings that overrides lead to, as config.yaml holds them."""
    return yaml.safe_dump(compose(words).plain, sort_keys=False)


def figures(value: float) -> dict[str, float | int]:
    """Figures that are all alike but for recall@5, which is a tenth of a point higher."""
    return {"users": 100, **dict.fromkeys(FIGURES, value), "recall@5": value + 0.001}


def summary(value: float) -> dict[str, Any]:
    """What metrics.json says of a stage's users, with items at half of it and popularity at 0.01."""
    popularity = {**figures(0.01), "item": figures(0.005)}
    return {**figures(value), "kind": "sid", "item": figures(value / 2), "popularity": popularity}


def made(
    output: Path,
    method: str = "peso",
    stage: int = 2,
    value: float = 0.1,
    *,
    seed: int = 1,
    variant: str = "v1",
    dataset: str = "synthetic",
    words: tuple[str, ...] = (),
    on: Mapping[int, float] | None = None,
    composition: tuple[str, str, str] = ("evolving", "none", "current"),
    data: str = "data",
    catalog: str = "catalog",
    valid: float | None = None,
    backbone: str = "tiny",
    **protocol: Any,
) -> Path:
    """Write a finished artifact and return its folder.

    Args:
        output: the folder of all runs.
        value: its figures on its own users.
        words: the overrides of its settings, beside the method and (unless they name one) the dataset.
        on: its figures on the users of other stages, by stage.
        composition: the names of its adapter, regularizer and memory.
        data, catalog: what their digests begin with.
        valid: its figures on its own validation users, if it was scored on them.
        backbone: its name, in the path and, where there is a file of that name, in its settings.
        protocol: changes to PROTOCOL.
    """
    folder = output / dataset / backbone / method / variant / f"seed_{seed}" / f"stage_{stage}"
    folder.mkdir(parents=True)
    path = ("dataset.path=somewhere",) if dataset != "synthetic" else ()
    chosen = () if method == "base" else (f"method={method}",)
    source = () if any(word.startswith("dataset=") for word in words) else (f"dataset={dataset}",)
    (folder / "config.yaml").write_text(settings(*chosen, *source, *path, *words))
    parent = {"fingerprint": fingerprint("base" if stage == 2 else method, stage - 1, seed)}
    lineage = {
        "method": method,
        "seed": seed,
        "stage": stage,
        "fingerprint": fingerprint(method, stage, seed) + variant * (method != "base"),
        "parents": [parent] * (stage > 1),
        "composition": dict(zip(("adapter", "regularizer", "memory"), composition, strict=True)),
        "data": {"catalog": catalog, "blocks": {}},
    }
    (folder / "lineage.json").write_text(json.dumps(lineage))
    metrics = figures_document(stage, {**(on or {}), stage: value}, data, **protocol)
    if valid is not None:
        metrics["evaluated"][str(stage)]["valid"] = summary(valid)
    training = {"trained_parameters": 1000, "history": []}
    seconds = {"train": 10.0 * stage, "evaluate": 1.0}
    (folder / "metrics.json").write_text(
        json.dumps(
            {**metrics, "training": training, "stored_bytes": 100 * stage, "seconds": seconds, "peak_bytes": 5000}
        )
    )
    (folder / "DONE").write_text('{"format": 1, "files": {}}')
    return folder


def fingerprint(method: str, stage: int, seed: int) -> str:
    """What a stage is known by."""
    return f"{method} {stage} {seed}"


def figures_document(stage: int, on: Mapping[int, float], data: str = "data", **protocol: Any) -> dict[str, Any]:
    """Figures of a protocol, as metrics.json and the files beside it hold them."""
    return {
        "stage": stage,
        "protocol": {**PROTOCOL, **protocol},
        "data": {str(users): f"{data} {users}" for users in on},
        "evaluated": {str(users): {"test": summary(value)} for users, value in on.items()},
        "groups": {
            str(users): {"test": {"new": figures(value), "dormant": figures(value / 4)}} for users, value in on.items()
        },
    }
