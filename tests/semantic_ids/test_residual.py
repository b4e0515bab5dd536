"""Residual quantization against its definition, one vector at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.semantic_ids.quantizers.rq_kmeans import Centers
from peso_cli.semantic_ids.residual import CHUNK, encode, reconstruction_error

SEEDS = st.integers(0, 2**32 - 1)


def naive(centers, vector):
    codes, left = [], vector
    for level in centers:
        found = [float(np.square(left.astype(np.float64) - center).sum()) for center in level]
        codes.append(found.index(min(found)))
        left = left - level[codes[-1]]
    return codes


def some(seed, rows, codes, levels, width, grid):
    """Vectors and centres; on a grid many distances are equal, and some centres are the same."""
    random = np.random.default_rng(seed)

    def draw(*shape):
        return (random.integers(-1, 2, shape) if grid else random.standard_normal(shape)).astype(np.float32)

    return Centers(tuple(draw(codes, width) for _ in range(levels))), draw(rows, width)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 12), st.integers(1, 9), st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_codes_are_those_of_a_loop_over_all_centres(seed, rows, codes, levels, width, grid):
    codebooks, vectors = some(seed, rows, codes, levels, width, grid)
    found = encode(codebooks, vectors)
    assert found.dtype == np.int32
    assert found.tolist() == [naive(codebooks.centers, vector) for vector in vectors]


def test_the_lowest_of_equal_centres_wins_even_far_from_the_origin():
    random = np.random.default_rng(1)
    center = (1000 + random.standard_normal((1, 48))).astype(np.float32)
    vectors = (center + 1e-3 * random.standard_normal((50, 48))).astype(np.float32)
    codebooks = Centers((np.concatenate([center - 5, *[center] * 7]),))
    assert encode(codebooks, vectors).tolist() == [[1]] * 50


def test_chunks_do_not_show(tmp_path):
    codebooks, vectors = some(3, CHUNK + 10, 4, 2, 3, grid=False)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    found = encode(codebooks, mapped)
    apart = np.concatenate([encode(codebooks, vectors[:77]), encode(codebooks, vectors[77:])])
    np.testing.assert_array_equal(found, apart)
    error = np.square(vectors - codebooks.centers[0][found[:, 0]] - codebooks.centers[1][found[:, 1]]).sum()
    relative = error / np.square(vectors - vectors.mean(axis=0)).sum()
    assert reconstruction_error(codebooks, mapped, found) == pytest.approx(relative, rel=1e-5)


def test_the_error_is_0_for_the_vectors_themselves_and_1_for_their_mean():
    vectors = np.array([[0, 0], [2, 0], [0, 4], [2, 4]], np.float32)
    codes = np.arange(4, dtype=np.int32)[:, None]
    assert reconstruction_error(Centers((vectors,)), vectors, codes) == 0
    assert reconstruction_error(Centers((vectors.mean(axis=0)[None],)), vectors, 0 * codes) == 1


def test_equal_vectors_have_their_plain_squared_error():
    vectors, center = np.ones((3, 2), np.float32), np.zeros((1, 2), np.float32)
    assert reconstruction_error(Centers((center,)), vectors, np.zeros((3, 1), np.int32)) == 6
