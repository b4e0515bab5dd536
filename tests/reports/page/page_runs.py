"""Runs with everything that the page can show: logs, predictions, and a dataset that can be opened."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from artifact_makers import made

from peso_cli.data.blocks import read_released

ITEMS = tuple(f"item{number}" for number in range(12))
USERS = ("user0", "user1", "user2")
STAGES = (2, 3)

HOSTILE = {
    "item1": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "item2": "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "item3": "abc \u202e\u2066 \u05e9\u05dc\u05d5\u05dd &amp; \"'",
    "item4": "long " * 200_000,
}


def released(folder: Path, titles: Mapping[str, str]) -> Path:
    """Write a dataset of three stages in the released layout."""
    folder.mkdir(parents=True)
    for block in range(3):
        users = {}
        for place, user in enumerate(USERS):
            before = [ITEMS[(place + n) % 12] for n in range(4 * block)]
            users[user] = {
                "previous_block": before,
                "current_block": [ITEMS[(place + block + n) % 12] for n in range(4)],
            }
        (folder / f"shop.all.block_{block}.json").write_text(json.dumps(users))
    index = {item: [f"<a_{n % 4}>", f"<b_{n // 4}>"] for n, item in enumerate(ITEMS)}
    (folder / "shop.index.json").write_text(json.dumps(index))
    (folder / "shop.item.json").write_text(json.dumps({item: {"title": title} for item, title in titles.items()}))
    return folder


def predictions(folder: Path, stage: int, ranks: Sequence[int | None], users: Sequence[str] = USERS) -> None:
    """Write what users were recommended: ten items, the target at a rank among them."""
    rows = range(len(users))
    table = {
        "user": list(users),
        "stage": pa.array([stage for _ in rows], pa.int32()),
        "target": [ITEMS[(row + stage + 2) % 12] for row in rows],
        "items": [list(ITEMS[1:11]) for _ in rows],
        "scores": [[-float(n) for n in range(10)] for _ in rows],
        "rank": pa.array(ranks, pa.int32()),
        "history_length": pa.array([4 for _ in rows], pa.int32()),
        "group": ["returning" for _ in rows],
        "position": pa.array(ranks, pa.int32()),
        "sharing": pa.array([1 for _ in rows], pa.int32()),
    }
    pq.write_table(pa.table(table), folder / "predictions.parquet")


def logged(folder: Path, steps: int = 3) -> None:
    """Write a log of some steps."""
    lines = [{"event": "train", "step": 0, "validation_loss": 4.0}]
    lines += [{"event": "train", "step": n, "loss": 3.0 / n, "penalty": 0.01 * n} for n in range(1, steps + 1)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def runs(output: Path, data: Path | None = None, variant: str = "v1") -> Path:
    """Write two methods over two stages, one with two strengths, each scored on all stages, on a dataset or none."""
    dataset = read_released(data, "shop") if data else None
    catalog = dataset.catalog_at(3).digest if dataset else "catalog"
    words = ("dataset=released", "dataset.name=shop", f"dataset.path={data or 'nowhere'}")
    methods = {("single", "v1"): (), ("peso", variant): ("regularizer.strength=20",), ("peso", "w"): ()}
    on = {1: 0.1, 2: 0.2, 3: 0.3}
    made(output, "base", 1, 0.1, dataset="shop", words=words, on=on, catalog=catalog)
    for place, ((method, name), own) in enumerate(methods.items()):
        for stage in STAGES:
            value = stage / 10 + place / 50
            others = {users: figure for users, figure in on.items() if users != stage}
            folder = made(
                output,
                method,
                stage,
                value,
                variant=name,
                dataset="shop",
                words=(*words, *own),
                on=others,
                catalog=catalog,
            )
            _blocks(folder, {str(stage): dataset.block(stage).digest if dataset else "block"})
            predictions(folder, stage, (place + 1, None if place else 2, None))
            logged(folder)
    return output


def _blocks(folder: Path, blocks: Mapping[str, str]) -> None:
    path = folder / "lineage.json"
    lineage = json.loads(path.read_text())
    lineage["data"]["blocks"] = blocks
    lineage |= {"git_commit": "c0ffee" * 6, "versions": {"torch": "2.9"}}
    path.write_text(json.dumps(lineage))
