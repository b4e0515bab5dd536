"""Runs of two methods on a world of three users, small enough to work every figure out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from artifact_makers import made
from worlds import write_released

from peso_cli.data.blocks import Dataset, read_released

SIDS = {"i0": "a0 b0", "i1": "a0 b0", "i2": "a0 b1", "i3": "a1 b0", "i4": "a1 b1", "i5": "a2 b0"}
STAGE_1 = {"u": ([], ["i0", "i2", "i3", "i0"]), "v": ([], ["i0", "i0", "i2", "i3"])}
STAGE_2 = {
    "u": (["i0", "i2", "i3", "i0"], ["i2", "i0", "i3"]),
    "v": (["i0", "i0", "i2", "i3"], ["i4", "i4", "i4", "i4"]),
    "w": ([], ["i4", "i4", "i4", "i5"]),
}
TARGETS = {"u": "i3", "v": "i4", "w": "i5"}
LENGTHS = {"u": 6, "v": 7, "w": 3}
GROUPS = {"u": "returning", "v": "returning", "w": "new"}
TOWERS = {"seen": "left_out", "top_k": 2, "window": 20}


def world(folder: Path) -> Dataset:
    """Write the world in the released layout, and open it."""
    index = {item: [f"<{code[0]}_{code[1]}>" for code in sid.split()] for item, sid in SIDS.items()}
    blocks = {
        block: {user: {"previous_block": past, "current_block": now} for user, (past, now) in users.items()}
        for block, users in enumerate((STAGE_1, STAGE_2))
    }
    return read_released(write_released(folder, index, blocks, {"i3": {"title": "Third"}}), "toy")


def run(
    output: Path,
    dataset: Dataset,
    path: Path,
    method: str,
    lists: Sequence[Sequence[str | None]],
    places: Sequence[tuple[int | None, int | None, int]],
    *,
    backbone: str = "tiny",
    confidences: Sequence[float] = (0.5, 0.5, 0.5),
    seed: int = 1,
) -> Path:
    """Write a finished stage 2.

    Args:
        output: the folder of all runs.
        dataset, path: the world and its folder.
        method: whose stage it is.
        lists: two recommendations for each of u, v, w.
        places: rank, position and number of items of each user's target.
        backbone: its name; any but `tiny` is of a two-tower model.
        confidences: the probabilities of the first recommendations.
        seed: of the run.
    """
    words = ("dataset=released", "dataset.name=toy", f"dataset.path={path}", f"backbone={backbone}")
    folder = made(
        output, method, 2, dataset="toy", words=words, backbone=backbone, catalog=dataset.catalog.digest, seed=seed
    )
    lineage = json.loads((folder / "lineage.json").read_text())
    lineage["data"]["blocks"] = {"2": dataset.block(2).digest}
    (folder / "lineage.json").write_text(json.dumps(lineage))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["protocol"] = {**metrics["protocol"], "top_k": 2} if backbone == "tiny" else TOWERS
    (folder / "metrics.json").write_text(json.dumps(metrics))
    ranks, positions, sharing = zip(*places, strict=True)
    # Scores are the mean over two codes and the end token.
    logs = pl.Series(confidences).log() / 3
    table = {
        "user": list(TARGETS),
        "stage": [2] * 3,
        "target": list(TARGETS.values()),
        "items": [list(each) for each in lists],
        "scores": [[score, score - 1] for score in logs],
        "rank": pl.Series(ranks, dtype=pl.Int32),
        "history_length": list(LENGTHS.values()),
        "group": list(GROUPS.values()),
        "position": pl.Series(positions, dtype=pl.Int32),
        "sharing": list(sharing),
    }
    pl.DataFrame(table).write_parquet(folder / "predictions.parquet")
    return folder


def runs(folder: Path) -> Path:
    """Write `single`, which serves u, and LightGCN's fine-tuning, which serves v, and u and w in second place.

    The semantic ID that is w's is second in the list of `single`, but two items share the first.
    """
    dataset = world(folder / "data")
    output = folder / "runs"
    single = [["i3", "i0"], ["i0", None], ["i0", "i5"]]
    run(
        output,
        dataset,
        folder / "data",
        "single",
        single,
        [(1, 1, 1), (None, None, 1), (2, 3, 1)],
        confidences=(0.95, 0.25, 0.15),
    )
    towers = [["i1", "i3"], ["i4", "i5"], ["i4", "i5"]]
    run(
        output,
        dataset,
        folder / "data",
        "two_tower_finetune",
        towers,
        [(2, 2, 1), (1, 1, 1), (2, 2, 1)],
        backbone="lightgcn",
    )
    return output
