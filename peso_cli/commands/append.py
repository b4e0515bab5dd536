"""`peso data append`: a further stage of new interactions, and semantic IDs for their new items."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from peso_cli.commands.build import stage_table
from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.layout import MANIFEST, SEMANTIC_IDS
from peso_cli.data.raw import BuiltDataset, RawDataset, SourceName
from peso_cli.data.reading import read_object
from peso_cli.errors import InputError
from peso_cli.terminal import OUT, TerminalDisplay

_TABLES: dict[str, SourceName] = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "parquet"}
"""The endings of plain tables, of which an appended one may be of another kind than those that were built from."""


def append(composed: Composed, files: Sequence[str], items: Sequence[str], as_json: bool) -> None:
    """Add a stage to a built dataset, and give its new items semantic IDs of every choice that the dataset has.

    Args:
        composed: names the dataset.
        files: the new interactions, in the layout that the dataset was built from; plain tables may be of any kind.
        items: texts of new items, likewise.
        as_json: print one JSON document.

    Raises:
        InputError: there is no such dataset, no file, or the interactions can't be made into a stage.
        RunError: a file of the dataset is damaged.
    """
    from peso_cli.data.append import append as run
    from peso_cli.data.sources.open import open_raw
    from peso_cli.semantic_ids.of_built import extend_stored

    dataset = composed.config.dataset
    if not isinstance(dataset, BuiltDataset | RawDataset):
        raise InputError(f"dataset.source={dataset.source} can't be appended to; give dataset=built dataset.name=NAME")
    if not files:
        raise InputError("no file with new interactions is named; write peso data append FILE dataset=built ...")
    root, given = Path(dataset.path), any(word.startswith("cleaning.on_bad_row=") for word in composed.overrides)
    rows = composed.config.cleaning.on_bad_row if given else None
    raw = _raw(dataset, root, files, items)
    with TerminalDisplay() as display:
        report = run(root, open_raw(raw, display), display, [*files, *items], rows)
        choices = sorted(path.parent for path in (root / SEMANTIC_IDS).glob("*/tokenizer.json"))
        outcomes = [extend_stored(root, folder, display) for folder in choices]
    if as_json:
        print_json({**dataclasses.asdict(report), "semantic_ids": [str(outcome.folder) for outcome in outcomes]})
        return
    OUT.print(stage_table(dataset.name, [report.stage]))
    for outcome in outcomes:
        OUT.print(f"{outcome.folder}: {report.stage.new_items:,} new items have semantic IDs", markup=False)


def _raw(dataset: BuiltDataset | RawDataset, root: Path, files: Sequence[str], items: Sequence[str]) -> RawDataset:
    """Return where the new interactions come from: as the dataset's own did, unless a raw source is configured."""
    if isinstance(dataset, RawDataset):
        known = dataset
    else:
        if not (root / MANIFEST).is_file():
            raise InputError(f"dataset.path={root}: holds no built dataset; make one by peso data build")
        settings = read_object(root / MANIFEST)["settings"]["dataset"]
        known = TypeAdapter(RawDataset).validate_python({**settings, "path": str(root)})
    source = known.source
    if source in _TABLES.values():
        source = _TABLES.get(_ending(files[0]), source)
    return replace(known, source=source, interactions=tuple(files), items=tuple(items), checksums=())


def _ending(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix
