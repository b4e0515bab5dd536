"""Whom a model is scored on, and their figures: of both kinds, of user groups, of popularity; the predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peso_cli.config.schema import Config, Decoding, Evaluation
from peso_cli.data.blocks import Block, Dataset
from peso_cli.data.examples import Examples, Split, examples, last_known
from peso_cli.errors import InputError
from peso_cli.evaluation.groups import GROUPS, user_groups
from peso_cli.evaluation.metrics import Figures, item_figures, mean_figures, sid_figures, sid_ranks
from peso_cli.evaluation.popularity import popularity_ranking
from peso_cli.files import write_atomically
from peso_cli.hybrid.settings import Hybrid, check_enough
from peso_cli.semantic_ids.catalog import Catalog
from peso_cli.two_tower.settings import TwoTower

Summary = dict[str, Any]


@dataclass(frozen=True)
class Audience:
    """Whom a model is scored on: the users of the stages `on`, asked for the events of `split`."""

    on: tuple[int, ...]
    split: Split


def audience_of(evaluation: Evaluation, stage: int, stages: int) -> Audience:
    """Return whom a protocol scores the model after a stage on.

    Args:
        evaluation: the protocol and its settings.
        stage: the last stage that the model was trained on.
        stages: how many stages the dataset has; with `next_stage` there is nobody to score the last one on.

    Raises:
        InputError: a setting contradicts the protocol.
    """
    protocol = evaluation.protocol
    if evaluation.on and protocol != "in_stage":
        raise InputError(
            f"evaluation.on={list(evaluation.on)}: evaluation={protocol} chooses the stages itself; "
            "give evaluation=in_stage with it, or leave it out"
        )
    if evaluation.split != "test" and protocol == "next_stage":
        raise InputError(
            f"evaluation.split={evaluation.split}: evaluation=next_stage asks for first events, which no split holds "
            "out; give evaluation=in_stage or evaluation=matrix with it, or leave it out"
        )
    match protocol:
        case "in_stage":
            return Audience(evaluation.on or (stage,), evaluation.split)
        case "matrix":
            return Audience(tuple(range(1, stages + 1)), evaluation.split)
        case "next_stage":
            return Audience((stage + 1,) if stage < stages else (), "next")


@dataclass(frozen=True, eq=False)
class Scored:
    """The users of one stage and split with their recommendations.

    Attributes:
        dataset, stage, split: who was scored.
        examples: one example per user.
        rows: (users, K) recommended rows of the semantic IDs of `catalog`, best first.
        scores: (users, K) their scores; with `items`, those of the items.
        items: (users, K) recommended catalog indices, best first, -1 where none is left, of a model that ranks items
            themselves; None of one that ranks semantic IDs.
        parts: of a hybrid, the same users with the recommendations of its parts, by their roles.
    """

    dataset: Dataset
    stage: int
    split: Split
    examples: Examples
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    items: NDArray[np.int64] | None = None
    parts: Mapping[str, Scored] = field(default_factory=dict)

    @property
    def catalog(self) -> Catalog:
        """The catalog that was recommended from: that of the last stage that the histories know."""
        return self.dataset.catalog_at(last_known(self.stage, self.split))

    @property
    def ranks(self) -> NDArray[np.int64]:
        """(users,) 1-based rank of the target's semantic ID, 0 if missed."""
        return sid_ranks(self.rows, self.catalog.sid_of[self.examples.target_items])

    @property
    def listed(self) -> NDArray[np.int64]:
        """(users, K) the item that stands for each recommendation, -1 for none: of a semantic ID's items the first."""
        if self.items is not None:
            return self.items
        return np.where(self.rows >= 0, self.catalog.first_items[self.rows], -1)

    @property
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(users,) the 1-based position where items among which the target is begin, 0 if missed; how many they are."""
        targets = self.examples.target_items
        if self.items is not None:
            return sid_ranks(self.items, targets.astype(np.int64)), np.ones(len(targets), dtype=np.int64)
        sizes = np.where(self.rows >= 0, self.catalog.sid_sizes[self.rows], 1)
        before, ranks = np.cumsum(sizes, axis=1) - sizes, self.ranks
        position = before[np.arange(len(ranks)), np.maximum(ranks, 1) - 1] + 1
        return np.where(ranks > 0, position, 0), self.catalog.sid_sizes[self.catalog.sid_of[targets]]

    @property
    def groups(self) -> NDArray[np.str_]:
        """(users,) the group of each user: new, returning, dormant or unknown."""
        return user_groups(self.examples.block, block_before(self.dataset, self.stage))[self.examples.user]

    def summary(self) -> Summary:
        """Return the figures: `sid` hits at the top level, `item` and the baselines beside them, and by group."""
        sid = sid_figures(self.ranks, self.rows.shape[1])
        return {
            **mean_figures(sid),
            "kind": "sid",
            "item": mean_figures(self._item_figures()),
            "popularity": self._popularity(),
            **self._of_parts(),
            **self._ceiling(sid),
            **self._left_out(),
            "groups": self._by_group(sid),
        }

    def _item_figures(self) -> Figures:
        """Return the figures of items: in expectation over those that share a semantic ID, or of the list of items."""
        targets = self.examples.target_items.astype(np.int64)
        if self.items is None:
            return item_figures(self.rows, targets, self.catalog)
        return sid_figures(sid_ranks(self.items, targets), self.items.shape[1])

    def _of_parts(self) -> Summary:
        """Return a hybrid's parts alone, and `oracle`: of each user the better one, a hit where either has it."""
        if not self.parts:
            return {}
        top = self.rows.shape[1]
        kinds = [{role: sid_figures(part.ranks, top) for role, part in self.parts.items()}]
        kinds.append({role: part._item_figures() for role, part in self.parts.items()})
        for kind in kinds:
            first, *others = kind.values()
            kind["oracle"] = {name: np.maximum.reduce([first[name], *(o[name] for o in others)]) for name in first}
        sid, item = kinds
        return {role: {**mean_figures(sid[role]), "item": mean_figures(item[role])} for role in sid}

    def _by_group(self, figures: Figures) -> Summary:
        members = self.groups
        return {group: mean_figures(figures, members == group) for group in GROUPS if (members == group).any()}

    def _popularity(self) -> Summary:
        """Score the list of the most frequent training targets of the last stage known, the same for every user."""
        catalog, block = self.catalog, self.dataset.block(last_known(self.stage, self.split))
        top = popularity_ranking(block, catalog, self.rows.shape[1])
        rows = np.broadcast_to(top, (len(self.examples), len(top)))
        targets = self.examples.target_items
        sid = mean_figures(sid_figures(sid_ranks(rows, catalog.sid_of[targets]), rows.shape[1]))
        return {**sid, "item": mean_figures(item_figures(rows, targets, catalog))}

    def _ceiling(self, figures: Figures) -> Summary:
        """Return the best attainable values of those figures for which they are known."""
        if self.dataset.ceiling is None or self.split != "test":
            return {}
        return {"ceiling": {n: value for n, value in self.dataset.ceiling(self.stage).items() if n in figures}}

    def _left_out(self) -> Summary:
        """Return how many users of the stage aren't asked: those without an event before it."""
        return {"left_out": len(self.examples.block.users) - len(self.examples)} if self.split == "next" else {}


def check_length(config: Config, catalog: Catalog, k: int) -> None:
    """Check that there can be k recommendations; a two-tower model needs no beam for them.

    Raises:
        InputError: the beam or the catalog is too small.
    """
    if isinstance(config.backbone, Hybrid):
        check_enough(config.backbone.candidates, k)
    beams = k if isinstance(config.backbone, TwoTower) else config.decoding.beams
    check_beams(replace(config.decoding, beams=beams), catalog, k)


def check_beams(decoding: Decoding, catalog: Catalog, k: int) -> None:
    """Check that a search can return k recommendations.

    Raises:
        InputError: the beam or the catalog is too small.
    """
    if decoding.beams < k:
        raise InputError(f"decoding.beams={decoding.beams}: must be at least {k}, the number of recommendations")
    if len(catalog.sids) < k:
        raise InputError(f"the catalog has {len(catalog.sids)} distinct semantic IDs, fewer than {k} recommendations")


def user_examples(dataset: Dataset, stage: int, split: Split, window: int) -> Examples:
    """Return one example per user of a stage.

    Raises:
        InputError: no user has one, or the stage isn't there.
    """
    found = examples(dataset.block(stage), split, window)
    if not len(found):
        next_one = split == "next"
        lacking = "events both before it and in it" if next_one else "enough events"
        mend = "; give evaluation=in_stage" if next_one else ""
        raise InputError(f"stage {stage} of {dataset.name} has no user with {lacking} to be scored{mend}")
    return found


def block_before(dataset: Dataset, stage: int) -> Block | None:
    """Return the block of the stage before, None where there is none."""
    return dataset.block(stage - 1) if stage > 1 and dataset.has(stage - 1) else None


def write_predictions(path: Path, scored: Scored) -> None:
    """Write predictions.parquet: one row per example.

    Columns: user, stage, target, items (top_k, best first: the first item that carries each recommended semantic ID,
    null where none does), scores (top_k), rank (of the target's semantic ID, 1-based, null if missed), history_length,
    group, and for figures of the kind `item`: position (where the items that share the target's semantic ID begin in
    the expanded list, null if missed) and sharing (how many they are). Of a model that ranks items, items and scores
    are of its list of items, position is the target's in it, and sharing 1. Of a hybrid also generative_rank
    and two_tower_rank, by its parts alone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    catalog, chosen = scored.catalog, scored.examples
    names = np.array([*catalog.items, None], dtype=object)
    items = names[scored.listed]  # -1 is the last: None
    ranks, (position, sharing) = scored.ranks, scored.places
    table = pa.table(
        {
            "user": [chosen.block.users[row] for row in chosen.user],
            "stage": pa.array([scored.stage] * len(chosen), pa.int32()),
            "target": [catalog.items[item] for item in chosen.target_items],
            "items": pa.array(items.tolist(), pa.list_(pa.string())),
            "scores": pa.array(scored.scores.tolist(), pa.list_(pa.float32())),
            "rank": _ranks_column(ranks),
            "history_length": pa.array(chosen.history_lengths, pa.int32()),
            "group": scored.groups.tolist(),
            "position": pa.array(position, pa.int32(), mask=position == 0),
            "sharing": pa.array(sharing, pa.int32()),
            **{f"{role}_rank": _ranks_column(part.ranks) for role, part in scored.parts.items()},
        }
    )
    write_atomically(path, lambda part: pq.write_table(table, part))


def _ranks_column(ranks: NDArray[np.int64]) -> Any:
    import pyarrow as pa

    return pa.array(ranks, pa.int32(), mask=ranks == 0)
