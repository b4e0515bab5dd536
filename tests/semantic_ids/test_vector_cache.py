import multiprocessing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from peso_cli.errors import RunError
from peso_cli.semantic_ids.embeddings.vector_cache import VectorCache, text_key


def _add(folder, first):
    cache = VectorCache(Path(folder))
    for start in range(first, first + 60, 4):
        keys = [text_key(str(number)) for number in range(start, start + 8)]
        cache.add(keys, np.full((8, 3), first, dtype=np.float32))


def test_two_processes_that_add_the_same_texts_do_no_harm(tmp_path):
    context = multiprocessing.get_context("spawn")
    adding = [context.Process(target=_add, args=(tmp_path, first)) for first in (0, 20)]
    for process in adding:
        process.start()
    for process in adding:
        process.join()
    stored = [key for part in sorted(tmp_path.glob("*.parquet")) for key in pl.read_parquet(part)["text"]]
    assert len(stored) == len(set(stored)) == 84
    found = VectorCache(tmp_path).vectors([text_key(str(number)) for number in range(84)])
    assert set(found[:20].ravel()) == {0}
    assert set(found[64:84].ravel()) == {20}


def test_the_first_vector_of_a_text_stays(tmp_path):
    cache = VectorCache(tmp_path)
    cache.add([b"x"], np.ones((1, 2), dtype=np.float32))
    cache.add([b"x", b"y"], np.full((2, 2), 7, dtype=np.float32))
    assert cache.vectors([b"y", b"x", b"x"]).tolist() == [[7, 7], [1, 1], [1, 1]]
    assert cache.known() == {b"x", b"y"}


def test_a_text_that_is_not_there_is_no_zero_vector(tmp_path):
    cache = VectorCache(tmp_path)
    cache.add([b"x"], np.ones((1, 2), dtype=np.float32))
    with pytest.raises(RunError, match="lost 1 texts"):
        cache.vectors([b"x", b"z"])
