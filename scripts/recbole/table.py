"""Print the test figures of both implementations, a row for each model: mean and each seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean, stdev

FIGURES = ("recall@10", "ndcg@10")


def figures(path: Path) -> dict[str, float]:
    """Return what one run reached."""
    found = json.loads(path.read_text())
    if "stages" in found:
        found = found["stages"]["1"]["evaluated"]["1"]["test"]["item"]
    return {name: float(found[name]) for name in FIGURES}


def shown(values: list[float]) -> str:
    """Return the mean, the spread over seeds, and the seeds."""
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{spread} ({', '.join(f'{value:.4f}' for value in values)})"


def main(folder: Path) -> None:
    """Print the table."""
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for path in sorted(folder.iterdir()):
        model, by, _ = path.name.split(".")
        runs.setdefault((model, by), []).append(figures(path))
    print(f"| model | by | {' | '.join(FIGURES)} |\n|---|---|---|---|")
    for (model, by), found in runs.items():
        print(f"| {model} | {by} | {' | '.join(shown([each[name] for each in found]) for name in FIGURES)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
