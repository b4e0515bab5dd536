"""Released files that were made, or damaged, by anyone."""

from __future__ import annotations

from random import Random

import pytest
from commands.running import peso
from hostile import harmless, hostile_json, seeds
from worlds import sid_texts, write_released

from peso_cli.data.blocks import read_released
from peso_cli.data.examples import examples
from peso_cli.data.statistics import stage_statistics
from peso_cli.errors import InputError

INDEX = {f"i{n}": sid_texts((n, n % 3)) for n in range(6)}
BLOCKS = {
    0: {"u": {"previous_block": [], "current_block": ["i0", "i1", "i2"]}},
    1: {
        "u": {"previous_block": ["i0"], "current_block": ["i1", "i2", "i3"]},
        "v": {"previous_block": [], "current_block": ["i4"]},
    },
}
TEXTS = {"i0": {"title": "A title", "description": ["x"]}, "i1": {"title": None}, "i5": {}}
CASES = 150


def hostile_folder(folder, random: Random):
    files = {"index": INDEX, 0: BLOCKS[0], 1: BLOCKS[1], "item": TEXTS}
    chosen = random.choice(list(files))
    write_released(folder, INDEX, BLOCKS, TEXTS)
    name = {"index": "toy.index.json", "item": "toy.item.json"}.get(chosen, f"toy.all.block_{chosen}.json")
    (folder / name).write_bytes(hostile_json(files[chosen], random))
    return folder


@pytest.mark.parametrize("seed", seeds(20))
def test_a_released_dataset_is_read_or_refused_in_one_line(tmp_path, seed):
    random, read, refusals = Random(seed), 0, []
    for _ in range(CASES):
        folder = hostile_folder(tmp_path / "toy", random)
        try:
            dataset = read_released(folder, "toy")
            stage_statistics(dataset)
            for stage in (1, 2):
                for split in ("train", "valid", "test"):
                    examples(dataset.block(stage), split, window=5)
            read += 1
        except InputError as error:
            refusals.append(str(error))
    assert 0 < read < CASES
    assert all(len(text.splitlines()) == 1 and len(text) < 5000 for text in refusals)


@pytest.mark.parametrize("seed", seeds(5))
def test_commands_show_what_can_be_read_and_nothing_else(tmp_path, seed):
    random = Random(seed)
    for case in range(6):
        folder = hostile_folder(tmp_path / "toy", random)
        words = ("dataset=released", "dataset.name=toy", f"dataset.path={folder}")
        if case % 2:
            harmless(peso("data", "stats", *words, *["--json"] * (case % 4 == 1)))
        else:
            harmless(peso("data", "examples", "--stage", 2, "--split", "test", *words))
