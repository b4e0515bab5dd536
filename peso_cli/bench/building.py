"""`peso bench data`: how long a build takes, and whether its memory stays the same when interactions become more.

Each build runs in a process of its own (`python -m peso_cli.bench.building LOG FOLDER`), so that its peak is its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from peso_cli.data.build import BuildReport, build
from peso_cli.data.raw import Cleaning, EventColumns, RawDataset, Split
from peso_cli.data.sources.open import open_raw
from peso_cli.errors import RunError
from peso_cli.stages import Display

Document = dict[str, Any]

_AT_ONCE = 500_000
_YEARS = (1_400_000_000, 1_560_000_000)
"""Seconds since 1970 between which interactions happen."""

_CLEANING = Cleaning("fail", "auto", "events", None, 5, 5, None, None)
_SPLIT = Split("chronological", "shares", (0.6, 0.1, 0.1, 0.1, 0.1), (), 5, 5)
_COLUMNS = EventColumns("user", "item", "timestamp", None)


def bench_build(rows: int, display: Display) -> Document:
    """Measure builds of `rows` and of twice as many generated interactions, of the same users and items.

    Args:
        rows: interactions of the smaller build; there is a user for each 20 of them, and an item for each 200.
        display: shows progress.

    Raises:
        RunError: a build failed.
    """
    users, items, tick = max(rows // 20, 1), max(rows // 200, 1), display.bar("builds")
    sizes: dict[str, Document] = {}
    for done, size in enumerate((rows, 2 * rows)):
        with tempfile.TemporaryDirectory(prefix="peso_bench_") as folder:
            tick(2 * done, 4, f"generating {size:,} interactions")
            log = Path(folder) / "log.parquet"
            write_interactions(log, size, users, items)
            tick(2 * done + 1, 4, f"building {size:,} interactions")
            sizes[str(size)] = {"log_bytes": log.stat().st_size, **_build_apart(log, Path(folder) / "built")}
    tick(4, 4, "")
    return {"bench": "data", "users": users, "items": items, "threads": _threads(), "sizes": sizes}


def write_interactions(path: Path, rows: int, users: int, items: int, seed: int = 1) -> None:
    """Write random interactions to a Parquet file, some at a time; few users and items have most of them."""
    random = np.random.default_rng(seed)
    columns = pa.schema([("user", pa.string()), ("item", pa.string()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(path, columns) as file:
        for begin in range(0, rows, _AT_ONCE):
            size = min(_AT_ONCE, rows - begin)
            who = (users * random.random(size) ** 2).astype(np.int64)
            what = (items * random.random(size) ** 2).astype(np.int64)
            ids = [np.char.mod(form, numbers) for form, numbers in (("user_%d", who), ("item_%d", what))]
            file.write_table(pa.table([*ids, random.integers(*_YEARS, size)], schema=columns))


def _threads() -> int:
    return int(os.environ.get("POLARS_MAX_THREADS") or os.cpu_count() or 1)


def _build_apart(log: Path, folder: Path) -> Document:
    """Build in a fresh process and return what it says of itself."""
    command = [sys.executable, "-m", "peso_cli.bench.building", str(log), str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RunError(f"the build failed: {(answer.stderr.strip().splitlines() or ['no word of why'])[-1]}")
    document: Document = json.loads(answer.stdout)
    return document


class _Silence:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Show a line."""

    def bar(self, title: str) -> Callable[[int, int, str], None]:
        """Open a progress bar."""
        return lambda done, total, note: None


def _measured(log: Path, folder: Path) -> Document:
    """Build here, and return the time, the peak of this process's memory and what came of it."""
    dataset = RawDataset("parquet", "bench", str(folder), (str(log),), (), (), _COLUMNS)
    begun = time.perf_counter()
    report: BuildReport = build(dataset, _CLEANING, _SPLIT, open_raw(dataset, _Silence()), _Silence())
    return {
        "seconds": time.perf_counter() - begun,
        "peak_bytes": _peak(),
        "stages": [stage.interactions for stage in report.stages],
        "dropped": {step.step: step.rows_before - step.rows_after for step in report.dropped},
    }


def _peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # unlike the figure of getrusage, this one doesn't begin with that of the parent process
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(json.dumps(_measured(Path(sys.argv[1]), Path(sys.argv[2]))))
