"""Finished artifacts whose files were damaged, or made, by anyone; those that only reports read need no training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import polars as pl
import pytest
import yaml
from artifact_makers import made
from commands.running import peso
from hostile import broken_bytes, damaged, harmless, hostile_json, seeds

CASES = 12
NOTED = ("missing: ", "synthetic, tiny, ")
"""How a page tells of a section that it can't make."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Stage 1 and stage 2 of two methods, with predictions and a file of other figures."""
    output = tmp_path_factory.mktemp("hostile") / "outputs"
    made(output, "base", 1)
    for method in ("peso", "single"):
        folder = made(output, method, 2, on={1: 0.2}, valid=0.1)
        predictions(folder)
        (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
        (folder / "evaluations").mkdir()
        (folder / "evaluations" / "abc.json").write_text((folder / "metrics.json").read_text())
    return output


def predictions(folder: Path) -> None:
    columns = {"user": ["u", "v"], "stage": [2, 2], "target": ["item1", "item2"], "items": [["item1"], ["item3"]]}
    more = {"scores": [[-1.0], [-2.0]], "rank": [1, None], "history_length": [3, 4], "group": ["new", "dormant"]}
    pl.DataFrame(columns | more).write_parquet(folder / "predictions.parquet")


def harm(output: Path, random: Random) -> None:
    """Damage one or two files of runs."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    for path in random.sample(files, random.randint(1, 2)):
        content = path.read_bytes()
        if path.suffix == ".parquet" and random.random() < 0.7:
            harm_table(path, random)
        elif path.suffix == ".yaml" and random.random() < 0.7:
            odd = damaged(yaml.safe_load(content), random)
            path.write_text(yaml.safe_dump(odd, allow_unicode=random.random() < 0.5))
        elif path.suffix in (".parquet", ".yaml", ".jsonl"):
            path.write_bytes(broken_bytes(content, random))
        else:
            path.write_bytes(hostile_json(json.loads(content), random))


def harm_table(path: Path, random: Random) -> None:
    """Drop a column of predictions, or fill it with what doesn't belong there."""
    table = pl.read_parquet(path)
    column = random.choice(table.columns)
    odd = pl.Series(column, [random.choice((None, -5, "\x1b[31m", [None], [["x"]], "u"))] * len(table), strict=False)
    (table.drop(column) if random.random() < 0.3 else table.with_columns(odd)).write_parquet(path)


def readers(output: Path, page: Path) -> list[tuple[object, ...]]:
    """The commands that read finished runs; each kind as likely as the others."""
    at = ("--output", output)
    lists = [("runs", *at), ("runs", *at, "--json"), ("report", *at, "--to", page)]
    forms = ("terminal", "markdown", "latex", "csv", "json")
    return 4 * lists + [("tables", name, *at, "--format", form) for name in TABLES for form in forms]


TABLES = ("main", "groups", "forgetting", "strength", "efficiency", "datasets", "significance", "cumulative")


@pytest.mark.parametrize("seed", seeds(40))
def test_reports_read_what_is_whole_and_name_what_is_not(runs, tmp_path, seed):
    random = Random(seed)
    for case in range(CASES):
        output = Path(shutil.copytree(runs, tmp_path / str(case)))
        harm(output, random)
        words = random.choice(readers(output, tmp_path / "page.html"))
        harmless(peso(*words), *NOTED)


def test_a_yaml_that_grows_without_end_when_it_is_read_is_refused(runs, tmp_path):
    output = Path(shutil.copytree(runs, tmp_path / "outputs"))
    levels = [f"l{n}: &l{n} {{{', '.join(f'k{k}: *l{n - 1}' for k in range(9))}}}" for n in range(1, 12)]
    for path in output.rglob("config.yaml"):
        path.write_text("\n".join(["l0: &l0 {a: 1}", *levels]))
    answer = peso("tables", "main", "--output", output)
    harmless(answer)
    assert "aliases" in answer.err


@pytest.mark.parametrize("name", ["metrics.json", "lineage.json", "config.yaml", "evaluations/abc.json"])
def test_a_document_that_is_nested_without_end_is_refused(runs, tmp_path, name):
    output = Path(shutil.copytree(runs, tmp_path / "outputs"))
    for path in output.rglob(name):
        path.write_text('{"a":' * 50_000)
    for words in (("runs",), ("tables", "main")):
        harmless(peso(*words, "--output", output), *NOTED)
