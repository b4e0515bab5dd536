import numpy as np
import pytest
from encoders import Lines, items_of
from hypothesis import given, settings
from hypothesis import strategies as st

from peso_cli.errors import InputError
from peso_cli.semantic_ids.embeddings.company import cooccurrences, positive_information
from peso_cli.semantic_ids.embeddings.cooccurrence import Cooccurrence

HISTORIES = st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=6)


def arrays(histories):
    return [np.array(history, dtype=np.int32) for history in histories]


def embedded(histories, count, width, window=2, seed=1, display=None):
    items = items_of([""] * count, histories)
    return Cooccurrence(width, window, seed).embed(items, display or Lines())


def counted_one_by_one(histories, window):
    counts = np.zeros((6, 6))
    for history in histories:
        for i, left in enumerate(history):
            for right in history[i + 1 : i + window + 1]:
                if left != right:
                    counts[left, right] += 1
                    counts[right, left] += 1
    return counts


@settings(max_examples=150, deadline=None)
@given(HISTORIES, st.integers(1, 15))
def test_pairs_are_counted_within_a_users_window_alone(histories, window):
    found = cooccurrences(arrays(histories), 6, window)
    assert found.toarray().tolist() == counted_one_by_one(histories, window).tolist()


def test_the_information_of_three_items_is_as_worked_out_by_hand():
    # Meetings: 0-1 three times, 1-2 once, both ways: n = 8; item 0 has 3, item 1 has 4, item 2 has 1.
    counts = cooccurrences(arrays([[0, 1, 0], [1, 0], [1, 2]]), 3, 1)
    assert counts.toarray().tolist() == [[0, 3, 0], [3, 0, 1], [0, 1, 0]]
    two = np.log(2)  # 3 * 8 / (3 * 4) and 1 * 8 / (4 * 1)
    assert np.allclose(positive_information(counts).toarray(), [[0, two, 0], [two, 0, two], [0, two, 0]])


def test_negative_information_counts_as_none():
    # 0-1 meet once though both have company galore: 1 * 42 / (11 * 11) < 1.
    counts = cooccurrences(arrays([[0, 2]] * 10 + [[1, 3]] * 10 + [[0, 1]]), 4, 1)
    found = positive_information(counts).toarray()
    assert found[0, 1] == 0
    assert found[0, 2] == pytest.approx(np.log(10 * 42 / (11 * 10)))


def test_full_width_gives_the_matrix_back():
    histories = np.random.default_rng(3).integers(0, 6, (40, 5))
    ppmi = positive_information(cooccurrences(arrays(histories), 6, 2)).toarray()
    found = embedded(histories, 6, 5)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    values = np.sort(np.linalg.svd(ppmi)[1])[::-1]
    # The columns of U sqrt(S) are orthogonal and their squared lengths are the singular values.
    assert np.allclose(found.T @ found, np.diag(values[:5]), atol=1e-4)


def test_equal_input_gives_equal_bytes_whatever_the_seed_of_others():
    histories = np.random.default_rng(3).integers(0, 40, (200, 6))
    first = embedded(histories, 40, 8)
    np.random.seed(9)
    assert embedded(histories, 40, 8).tobytes() == first.tobytes()
    assert np.allclose(embedded(histories, 40, 8, seed=2), first, atol=0.05)


def test_items_of_one_kind_come_close_together():
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, 10, 8) + 10 * (user % 2) for user in range(200)]
    found = embedded(histories, 20, 2)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    cosines = found @ found.T
    assert cosines[:10, :10].min() > cosines[:10, 10:].max() + 0.5


def test_items_without_company_get_zeros_and_are_counted():
    display = Lines()
    found = embedded([[0, 1, 2, 0, 1], [4], [5, 5]], 7, 2, display=display)
    assert np.flatnonzero(found.any(axis=1)).tolist() == [0, 1, 2]
    assert display.said == [
        "cooccurrence: 2 of 7 items have no events in stage 1 and 2 no company there; these get the zero vector"
    ]


@pytest.mark.parametrize("histories", [[], [[0], [1], [2]], [[0, 1, 2]]])
def test_a_width_beyond_the_items_with_company_is_refused(histories):
    with pytest.raises(InputError, match=r"embedding.width=3: only [03] items co-occur"):
        embedded(histories, 6, 3)


def test_many_items_stay_sparse():
    rng = np.random.default_rng(0)
    events = np.minimum(rng.pareto(0.8, (5_000, 10)) * 300, 99_999).astype(np.int32)
    found = embedded(list(events), 100_000, 4, window=3)
    assert found.shape == (100_000, 4)
    assert np.isfinite(found).all()
