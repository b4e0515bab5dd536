"""What this version of peso leaves behind, small: made once for each format, and kept for later versions to read.

`bash scripts/samples` writes the folder `v<format>` beside this file. What is there already stays as it is: samples of
a format are never made again by a version that has changed since.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from random import Random

from commands.running import peso
from worlds import write_released

from peso_cli.artifacts import FORMAT
from peso_cli.config.compose import compose
from peso_cli.stages import ensure, open_run

HERE = Path(__file__).parent

ITEMS, USERS, STAGES = 24, 12, 3

WORDS = (
    "dataset=released",
    "dataset.name=toy",
    "dataset.path=data",
    "output=runs",
    "backbone.hidden=16",
    "backbone.layers=1",
    "backbone.heads=2",
    "backbone.key_value_heads=2",
    "backbone.feed_forward=16",
    "backbone.lora.rank=2",
    "backbone.lora.targets=[q_proj,v_proj]",
    "trainer.epochs=2",
    "trainer.later_epochs=2",
    "trainer.batch_tokens=64",
    "trainer.accumulation=1",
    "trainer.validation_users=12",
    "decoding.beams=10",
    "tracker=none",
    "device=cpu",
)
"""Overrides that lead to the samples, from the folder that holds them."""

STOPPED_AT = 3
"""Optimiser steps of stage 2 of `single`, which is left unfinished."""

SWEEP = (*WORDS, "method=peso", "stage=2", "regularizer.strength=3000.0,1e300")
"""A sweep of two runs: one is done, the other diverges."""


LOG = ("dataset=csv", "dataset.name=shop", "dataset.path=shop", "dataset.interactions=[log.csv]", "dataset.items=[]")
COLUMNS = ("dataset.columns.user=who", "dataset.columns.item=what", "dataset.columns.timestamp=when")
SPLIT = ("split.shares=[0.6,0.4]", "split.min_events=3", "cleaning.core_users=3", "cleaning.core_items=1")
IDS = ("embedding=cooccurrence", "embedding.width=4", "quantizer.levels=2", "quantizer.codes=4")
BUILT = ("dataset=built", "dataset.name=shop", "dataset.path=shop")
"""Overrides that lead to the built dataset, which has two stages and semantic IDs."""


class Stopping:
    """A display that sends the process a signal once a stage has taken some steps."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def bar(self, title: str):
        """Watch the steps."""
        return lambda done, total, note: os.kill(os.getpid(), signal.SIGINT) if done == STOPPED_AT else None


def data(folder: Path) -> None:
    """Write a dataset in the released layout, with titles."""
    random, items = Random(1), [f"item{n}" for n in range(ITEMS)]
    index = {item: [f"<a_{n % 4}>", f"<b_{n // 4}>"] for n, item in enumerate(items)}
    seen: dict[str, list[str]] = {f"user{n}": [] for n in range(USERS)}
    blocks = {}
    for block in range(STAGES):
        now = {user: [random.choice(items) for _ in range(5)] for user in seen}
        blocks[block] = {u: {"previous_block": list(seen[u]), "current_block": now[u]} for u in seen}
        for user, events in now.items():
            seen[user] += events
    write_released(folder, index, blocks, {item: {"title": f"The {n}th"} for n, item in enumerate(items)})


def log(path: Path) -> None:
    """Write a log in which each of a few users takes an item a day."""
    random, day = Random(2), 86_400
    events = [f"u{u},i{random.randrange(16)},{(15_000 + d) * day + u}\n" for d in range(10) for u in range(8)]
    path.write_text("who,what,when\n" + "".join(events))


def done(*words: str) -> None:
    """Run a command that must succeed."""
    answer = peso(*words)
    assert answer.code == 0, answer


def make(folder: Path) -> None:
    """Write all samples into a folder that isn't there yet."""
    folder.mkdir()
    os.chdir(folder)
    log(Path("log.csv"))
    done("data", "build", *LOG, *COLUMNS, *SPLIT)
    done("tokenize", *BUILT, *IDS)
    data(Path("data"))
    done("train", *WORDS, "method=peso", "stage=1..3")
    done("evaluate", *WORDS, "method=peso", "stage=2", "evaluation.on=[1,2]")
    done("evaluate", *WORDS, "method=peso", "stage=3", "decoding=positional", "decoding.beams=10")
    assert peso("sweep", *SWEEP).code == 1
    with contextlib.suppress(KeyboardInterrupt):
        ensure(open_run(compose([*WORDS, "method=single"])), [2], Stopping())
    # Where they were made is nobody's business.
    for path in [*folder.glob("runs/sweeps/*/*.json"), *folder.glob("runs/sweeps/*/runs/*.json")]:
        path.write_text(path.read_text().replace(str(folder), "/somewhere"))


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE / f"v{FORMAT}")
