"""Writing a dataset in the released layout, which `read_released` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from peso_cli.data.blocks import Block, Dataset
from peso_cli.errors import InputError, RunError
from peso_cli.files import write_atomically
from peso_cli.semantic_ids.catalog import Catalog, token_text

Entries = Iterator[tuple[str, Any]]


def write_released(dataset: Dataset, folder: Path, name: str) -> None:
    """Write blocks, semantic IDs and titles of a dataset; a stage that it lacks stays missing.

    Memory holds one block at a time. The index file is written last, without which no folder is read; what fails before
    that leaves nothing behind. The layout has no place for the sizes that levels are declared to have, nor for which
    items are recommended at a stage.

    Args:
        dataset: any dataset.
        folder: the folder to write, made where it isn't there.
        name: what the files' names begin with.

    Raises:
        InputError: the folder holds such files already or can't be made, or a stage's data is broken.
        RunError: a file can't be written.
    """
    _check_name(name)
    made = _make_folder(folder)
    written: list[Path] = []
    try:
        for path, entries in _files(dataset, folder, name):
            written.append(path)
            write_atomically(path, partial(_write_object, entries=entries))
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if made:
            folder.rmdir()
        if isinstance(error, OSError):
            raise RunError(f"{folder}: can't be written ({error.strerror})") from None
        raise


def _check_name(name: str) -> None:
    if ".index" in name or "/" in name:
        raise InputError(f"{name!r} can't begin the names of released files: leave out '/' and '.index'")


def _make_folder(folder: Path) -> bool:
    """Return whether the folder had to be made."""
    try:
        folder.mkdir(parents=True)
        return True
    except FileExistsError:
        if not folder.is_dir():
            raise InputError(f"{folder}: is a file; give a folder") from None
    except OSError as error:
        raise InputError(f"{folder}: can't be made ({error.strerror}); give another folder") from None
    for pattern in ("*.all.block_*.json", "*.index*.json", "*.item.json"):
        if found := sorted(folder.glob(pattern)):
            raise InputError(f"{found[0]}: is there already; give a folder that holds no dataset")
    return False


def _files(dataset: Dataset, folder: Path, name: str) -> Iterator[tuple[Path, Callable[[], Entries]]]:
    for stage in range(1, dataset.stages + 1):
        if dataset.has(stage):
            yield folder / f"{name}.all.block_{stage - 1}.json", partial(_block_entries, dataset, stage)
    if dataset.catalog.titles:
        yield folder / f"{name}.item.json", partial(_title_entries, dataset.catalog.titles)
    yield folder / f"{name}.index.json", partial(_index_entries, dataset.catalog)


def _write_object(path: Path, entries: Callable[[], Entries]) -> None:
    """Write one JSON object, an entry a line."""
    with path.open("w", encoding="utf-8") as file:
        before = "{\n"
        for key, value in entries():
            file.write(f"{before}{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}")
            before = ",\n"
        file.write("\n}\n")


def _block_entries(dataset: Dataset, stage: int) -> Entries:
    # Read past the dataset's own store, which would keep every block.
    block, items = dataset.read(stage), dataset.catalog.items
    if not block.users:
        raise InputError(f"stage {stage} of {dataset.name} holds no user, and the released layout has no such blocks")
    for user, start, current, end in zip(*_columns(block), strict=True):
        previous, own = block.events[start:current].tolist(), block.events[current:end].tolist()
        yield user, {"previous_block": [items[i] for i in previous], "current_block": [items[i] for i in own]}


def _columns(block: Block) -> tuple[tuple[str, ...], list[int], list[int], list[int]]:
    return block.users, block.starts[:-1].tolist(), block.current.tolist(), block.starts[1:].tolist()


def _index_entries(catalog: Catalog) -> Entries:
    for item, codes in zip(catalog.items, catalog.codes, strict=True):
        yield item, [token_text(level, code) for level, code in enumerate(codes.tolist())]


def _title_entries(titles: Mapping[str, str]) -> Entries:
    for item, title in titles.items():
        yield item, {"title": title}
