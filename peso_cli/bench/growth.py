"""`peso bench growth`: whether decoding keeps its pace when users and items become many."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from peso_cli.backbones.build import build_backbone
from peso_cli.bench.measure import Times, peak_memory, side_by_side
from peso_cli.config.schema import Config
from peso_cli.decoding.constraints import TrieConstraint
from peso_cli.evaluation.ranking import Ranker, pick_device
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.semantic_ids.trie import build_trie
from peso_cli.stages import Display

Document = dict[str, Any]

_USERS = (1000, 5000, 20000)
_ITEMS = (10_000, 100_000, 1_000_000)
_LEVELS, _CODES = 4, 256
_AT_ONCE = 64


def bench_growth(config: Config, repeats: int, display: Display) -> Document:
    """Measure time per user and memory as users grow, and time per search as items grow.

    Args:
        config: its backbone is built for generated catalogs; its beams are used.
        repeats: how often each is timed.
        display: shows progress.
    """
    catalogs = {items: random_catalog(items, config.seed) for items in _ITEMS}
    rankers = {items: _ranker(config, catalog) for items, catalog in catalogs.items()}
    some = _histories(512, min(_ITEMS), config.seed)
    by_items = side_by_side(
        {str(items): (lambda ranker=ranker: ranker.rank(some, 10)) for items, ranker in rankers.items()},  # type: ignore[misc]
        repeats,
        display.bar("items"),
    )
    ranker, many = rankers[min(_ITEMS)], _histories(max(_USERS), min(_ITEMS), config.seed)
    by_users = side_by_side(
        {str(users): (lambda users=users: ranker.rank(many[:users], 10)) for users in _USERS},  # type: ignore[misc]
        max(1, repeats // 2),
        display.bar("users"),
    )
    return {
        "bench": "growth",
        "backbone": config.backbone.name,
        "beams": config.decoding.beams,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "milliseconds_per_user_by_users": _per_user(by_users, {str(users): users for users in _USERS}),
        "milliseconds_per_user_by_items": _per_user(by_items, {str(items): len(some) for items in _ITEMS}),
        "peak_bytes_by_users": {str(u): peak_memory(lambda u=u: ranker.rank(many[:u], 10)) for u in _USERS},  # type: ignore[misc]
        "trie": {str(items): _trie_figures(catalog) for items, catalog in catalogs.items()},
    }


def _per_user(times: dict[str, Times], users: dict[str, int]) -> dict[str, float]:
    return {name: 1e3 * t.median / users[name] for name, t in times.items()}


def random_catalog(items: int, seed: int) -> Catalog:
    """Return items of distinct random semantic IDs of four levels with 256 codes each."""
    numbers = np.random.default_rng(seed).choice(_CODES**_LEVELS, items, replace=False)
    codes = np.stack(np.unravel_index(numbers, (_CODES,) * _LEVELS), axis=1).astype(np.int32)
    codes[0] = _CODES - 1
    return Catalog(tuple(f"i{n}" for n in range(items)), codes, {})


def _ranker(config: Config, catalog: Catalog) -> Ranker:
    backbone = build_backbone(config.backbone, config.prompt, catalog, config.seed)
    backbone.model.to(pick_device(config.device))  # type: ignore[arg-type]
    return Ranker(backbone.model, backbone.vocabulary, backbone.prompt, catalog, config.decoding)


def _histories(users: int, items: int, seed: int) -> list[NDArray[np.int32]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, items, size).astype(np.int32) for size in random.integers(1, 21, users)]


def _trie_figures(catalog: Catalog) -> Document:
    times = side_by_side({"build": lambda: build_trie(catalog.sids)}, 1, lambda done, total, name: None)
    trie, constraint = build_trie(catalog.sids), TrieConstraint(catalog, torch.device("cpu"))
    nodes = torch.zeros(_AT_ONCE, 1, dtype=torch.long)
    for level in range(constraint.levels - 1):
        nodes = constraint.children(level, nodes).nodes[..., :1]
    step = side_by_side({"step": lambda: constraint.children(constraint.levels - 1, nodes)}, 5, lambda a, b, c: None)
    return {
        "build_seconds": times["build"].median,
        "bytes_per_item": trie.nbytes / len(catalog.items),
        "step_milliseconds": 1e3 * step["step"].median,
    }
