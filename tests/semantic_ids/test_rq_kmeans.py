"""Residual k-means: levels that help, codes that all are used, equal shares, equal bytes."""

import numpy as np
import pytest
from embedded import as_bytes, clumps, sharing, silent
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from peso_cli.errors import InputError
from peso_cli.semantic_ids.clustering import revived
from peso_cli.semantic_ids.quantizers.rq_kmeans import RQKMeans
from peso_cli.semantic_ids.residual import encode, reconstruction_error
from peso_cli.semantic_ids.shares import even_codes, even_prices, plan_of

EMBEDDINGS = clumps()


def quantizer(**changes):
    chosen = {"levels": 3, "codes": 8, "balanced": "later", "iterations": 25, "sample": None, "name": "q"}
    return RQKMeans(**(chosen | changes))


def fitted(embeddings=EMBEDDINGS, seed=1, **changes):
    return quantizer(**changes).fit(embeddings, seed, silent)


def loads(codes, count=8):
    return np.bincount(codes, minlength=count)


@pytest.mark.parametrize("balanced", ["none", "later", "all"])
def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(balanced):
    embeddings = clumps(rows=2000, width=48)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            codebooks, codes = fitted(embeddings, balanced=balanced)
            found.append(as_bytes(codebooks.tensors(), codes))
    assert found[0] == found[1]
    codebooks, codes = fitted(embeddings, seed=2, balanced=balanced)
    assert as_bytes(codebooks.tensors(), codes) != found[0]


def test_codebooks_made_again_from_their_tensors_give_the_same_codes():
    codebooks, _ = fitted()
    later = clumps(seed=5)
    again = quantizer().load(dict(codebooks.tensors()))
    np.testing.assert_array_equal(encode(again, later), encode(codebooks, later))


def test_codes_of_plain_k_means_are_the_nearest_ones():
    codebooks, codes = fitted(balanced="none")
    np.testing.assert_array_equal(codes, encode(codebooks, EMBEDDINGS))


@pytest.mark.parametrize("balanced", ["none", "later", "all"])
def test_every_level_lowers_the_error(balanced):
    codebooks, codes = fitted(balanced=balanced)
    errors = []
    for level in range(1, 4):
        upto = quantizer(levels=level).load({f"centers.{n}": codebooks.centers[n] for n in range(level)})
        errors.append(reconstruction_error(upto, EMBEDDINGS, codes[:, :level]))
    assert 1 > errors[0] > errors[1] > errors[2]


def test_balanced_levels_have_equal_shares_and_others_do_not():
    for balanced, even in (("none", [False] * 3), ("later", [False, True, True]), ("all", [True] * 3)):
        _, codes = fitted(clumps(rows=301), balanced=balanced)
        assert [int(np.ptp(loads(level))) <= 1 for level in codes.T] == even


def test_balance_leaves_fewer_items_with_one_semantic_id():
    assert sharing(fitted()[1]) < sharing(fitted(balanced="none")[1])


def test_items_beyond_the_sample_get_codes_of_equal_shares_too():
    embeddings = clumps(rows=2001)
    _, codes = fitted(embeddings, sample=500, balanced="all")
    assert [int(np.ptp(loads(level))) for level in codes.T] == [1, 1, 1]


def test_the_embeddings_stay_as_they_are_and_may_be_read_only(tmp_path):
    np.save(tmp_path / "e.npy", EMBEDDINGS)
    _, codes = fitted(np.load(tmp_path / "e.npy", mmap_mode="r"))
    np.testing.assert_array_equal(codes, fitted()[1])


def test_all_codes_are_used_where_most_items_are_equal():
    embeddings = np.concatenate([np.repeat(EMBEDDINGS[:1], 2000, axis=0), EMBEDDINGS])
    _, codes = fitted(embeddings, codes=32, balanced="none")
    assert all(loads(level, 32).all() for level in codes.T)


def test_dead_codes_go_where_vectors_are_far_from_all_centres():
    vectors = np.array([[0.0], [1.0], [5.0], [7.0], [9.0], [9.0]], np.float32)
    dead = np.array([[0.0], [100.0], [5.0], [200.0]], np.float32)
    assert revived(vectors, dead)[:, 0].tolist() == [0, 9, 5, 7]


def test_too_few_distinct_embeddings_are_refused():
    with pytest.raises(InputError, match=r"quantizer\.codes=8: .* 300 embeddings, of which only 7 are distinct"):
        fitted(np.tile(EMBEDDINGS[:7], (43, 1))[:300])
    fitted(np.tile(EMBEDDINGS[:8], (38, 1))[:300])
    with pytest.raises(InputError, match=r"quantizer\.sample=7 must be at least quantizer\.codes=8"):
        fitted(sample=7)


matrices = st.tuples(st.integers(2, 60), st.integers(2, 7), st.integers(0, 2**32 - 1))


@settings(max_examples=40, deadline=None)
@given(matrices)
def test_even_codes_are_even_whatever_the_vectors(shape):
    rows, codes, seed = shape
    random = np.random.default_rng(seed)
    vectors = random.integers(-2, 3, (rows, 2)).astype(np.float32)
    centers, prices = random.standard_normal((codes, 2)).astype(np.float32), np.zeros(codes, np.float32)
    found = even_codes(lambda rows: vectors[rows], rows, centers, prices)
    assert found.min() >= 0
    assert np.ptp(loads(found, codes)) <= 1


@settings(max_examples=30, deadline=None)
@given(matrices)
def test_sinkhorn_prices_give_every_code_the_same_mass(shape):
    rows, codes, seed = shape
    found = np.random.default_rng(seed).random((rows, codes)).astype(np.float32)
    plan = plan_of(found, even_prices(found, (1.0,), 200), float((found - found.min(axis=1, keepdims=True)).mean()))
    plan /= plan.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(plan.sum(axis=0), rows / codes, rtol=1e-2)


@pytest.mark.parametrize("changes", [{"codes": 1}, {"levels": 0}, {"balanced": "some"}, {"sample": 0}, {"more": 1}])
def test_wrong_settings_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        quantizer(**changes)
