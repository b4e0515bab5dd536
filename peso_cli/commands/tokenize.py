"""`peso tokenize`: from the texts of items to semantic IDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed
from peso_cli.data.raw import BuiltDataset, RawDataset
from peso_cli.errors import InputError
from peso_cli.terminal import OUT, TerminalDisplay

_DID = {
    "made": "made",
    "reused": "there already, with the same settings",
    "extended": "extended by the stages that were appended; what was there stays as it is",
}


def tokenize(composed: Composed, items_file: Path | None, output: Path | None, as_json: bool) -> None:
    """Give the items of a built dataset, or of a file, semantic IDs, and print how good they are.

    Args:
        composed: the configuration; its dataset counts only where no file is given.
        items_file: a file of item texts in the released layout.
        output: the index file to write for them.
        as_json: print one JSON document.

    Raises:
        InputError: there is nothing to tokenize, it doesn't fit the settings, or the place is taken.
        RunError: a file is damaged.
    """
    with TerminalDisplay() as display:
        if items_file is None and output is None:
            document = _built(composed, display)
        elif items_file is not None and output is not None:
            document = _file(composed, items_file, output, display)
        else:
            raise InputError("--items FILE and --output INDEX.json go together; without both a built dataset is meant")
    if as_json:
        print_json(document)
        return
    OUT.print(_figures(document))
    OUT.print(_levels(document["quality"]))
    OUT.print(f"{document['path']}: {_DID[document['did']]}", markup=False)


def _built(composed: Composed, display: TerminalDisplay) -> dict[str, Any]:
    from peso_cli.semantic_ids.of_built import bring_into_being, settings_of

    config = composed.config
    if not isinstance(config.dataset, BuiltDataset | RawDataset):
        raise InputError(
            f"dataset.source={config.dataset.source} has semantic IDs; give dataset=built dataset.name=NAME, or "
            "--items FILE --output INDEX.json"
        )
    settings, root = settings_of(composed.plain), Path(config.dataset.path)
    outcome = bring_into_being(root, settings, config.embedding, config.quantizer, config.tokenizer, display)
    return {"path": str(outcome.folder), "did": outcome.did, **outcome.figures}


def _file(composed: Composed, items_file: Path, output: Path, display: TerminalDisplay) -> dict[str, Any]:
    from peso_cli.semantic_ids.index_files import write_index
    from peso_cli.semantic_ids.item_sources import items_of_file
    from peso_cli.semantic_ids.of_built import figures_of
    from peso_cli.semantic_ids.tokenize import tokenize as run

    if output.exists():
        raise InputError(f"--output {output}: is there already; give another one, or move it away")
    config = composed.config
    items = items_of_file(items_file, config.tokenizer.text, display)
    made = run(items, config.embedding, config.quantizer, config.tokenizer, display)
    write_index(output, items.ids, made.codes)
    return {"path": str(output), "did": "made", **figures_of(items, made)}


def _figures(document: dict[str, Any]) -> Table:
    quality = document["quality"]
    rows = {
        "items": f"{document['items']:,}",
        "items without text": f"{document['items_without_text']:,}",
        "different semantic IDs": f"{quality['distinct']:,}",
        "items that share one, as encoded": _sharing(quality["before"]),
        "items that share one, in the end": _sharing(quality["after"]),
        "reconstruction error": _number(quality["reconstruction_error"]),
        "AMI with brand": _agreement(quality["brand"]),
        "AMI with category": _agreement(quality["category"]),
    }
    table = Table(title="semantic IDs", title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _levels(quality: dict[str, Any]) -> Table:
    table = Table("level", title_justify="left")
    for level in range(len(quality["level_sizes"])):
        table.add_column(chr(ord("a") + level), justify="right")
    table.add_row("codes", *(f"{size:,}" for size in quality["level_sizes"]))
    table.add_row("used", *(f"{used:,}" for used in quality["used"]))
    table.add_row("perplexity", *(f"{value:,.1f}" for value in quality["perplexity"]))
    return table


def _sharing(value: dict[str, float | None] | None) -> str:
    if value is None:
        return "unknown"
    beyond = value["beyond_text"]
    return f"{value['all']:.2%}" + ("" if beyond is None else f" ({beyond:.2%} with one of different text)")


def _agreement(value: dict[str, float | None] | None) -> str:
    if value is None:
        return "unknown"
    return f"{_number(value['first'])} (first code), {_number(value['first_two'])} (first two)"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
