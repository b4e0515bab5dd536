import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import COMPACT, INSTRUCT, catalog_of, random_catalog, small_llama, vocabulary_of

from peso_cli.backbones.prompts import render
from peso_cli.config.schema import Decoding
from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.ranking import Ranker, pick_device, seeded_sample

CATALOG = random_catalog(30, (3, 4, 5))
MODELS = {t.name: small_llama(vocabulary_of(CATALOG, t)) for t in (COMPACT, INSTRUCT)}
RANDOM = np.random.default_rng(0)
HISTORIES = [RANDOM.integers(0, 30, size).astype(np.int32) for size in (3, 0, 5, 1, 5, 2, 4, 0, 3, 5, 5, 1)]


def ranker_of(batch_tokens=10_000, constraint="trie", beams=10, template=COMPACT, catalog=CATALOG):
    vocabulary = vocabulary_of(catalog, template)
    model = MODELS[template.name] if catalog is CATALOG else small_llama(vocabulary)
    decoding = Decoding(beams, constraint, "vocabulary", batch_tokens)
    return Ranker(model, vocabulary, render(template, vocabulary, catalog), catalog, decoding)


def test_every_user_is_ranked_for_once_in_place():
    ranking = ranker_of().rank(HISTORIES)
    assert ranking.rows.shape == ranking.scores.shape == (12, 10)
    for row, scores in zip(ranking.rows, ranking.scores, strict=True):
        assert len(set(row.tolist())) == 10
        assert (row >= 0).all()
        assert (np.diff(scores) <= 0).all()
    # Equal histories get equal lists, wherever they stand.
    assert (ranking.rows[1] == ranking.rows[7]).all()
    alone = ranker_of().rank([HISTORIES[4]])
    assert (alone.rows[0] == ranking.rows[4]).all()
    assert alone.scores[0] == pytest.approx(ranking.scores[4], abs=1e-5)


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda t: t.name)
@pytest.mark.parametrize("constraint", ["trie", "positional"])
def test_the_size_of_batches_changes_nothing(constraint, template):
    whole = ranker_of(10_000, constraint, template=template).rank(HISTORIES)
    for tokens in (1, 30, 100):
        parts = ranker_of(tokens, constraint, template=template).rank(HISTORIES)
        assert (parts.rows == whole.rows).all()
        assert parts.scores == pytest.approx(whole.scores, abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_users_changes_nothing(order):
    ranking = ranker_of(60).rank(HISTORIES)
    shuffled = ranker_of(60).rank([HISTORIES[i] for i in order])
    assert (shuffled.rows == ranking.rows[order]).all()
    assert shuffled.scores == pytest.approx(ranking.scores[order], abs=1e-5)


def test_as_many_as_asked_for_and_the_same_ones_first():
    ranker = ranker_of(beams=20)
    twenty, three = ranker.rank(HISTORIES, 20), ranker.rank(HISTORIES, 3)
    assert twenty.rows.shape == (12, 20)
    assert (three.rows == twenty.rows[:, :3]).all()


def test_a_catalog_with_no_more_than_ten_is_ranked_whole():
    catalog = catalog_of([[n // 4, n % 4] for n in range(10)])
    ranking = ranker_of(beams=20, catalog=catalog).rank(HISTORIES[1:2])
    assert sorted(ranking.rows[0].tolist()) == list(range(10))


def test_sequences_that_no_item_carries_keep_their_places():
    ranking = ranker_of(constraint="positional").rank(HISTORIES)
    assert (ranking.rows == -1).any()
    assert np.isfinite(ranking.scores).all()


def test_nobody_is_ranked_for_nobody():
    ranking = ranker_of().rank([])
    assert ranking.rows.shape == (0, 10)


def test_progress_counts_users():
    ticks = []
    ranker_of(60).rank(HISTORIES, tick=lambda done, total: ticks.append((done, total)))
    assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)
    assert ticks[-1] == (12, 12)
    assert len(ticks) > 2


def test_a_user_who_is_left_out_is_a_failure(monkeypatch):
    ranker = ranker_of()
    monkeypatch.setattr(ranker, "_batches", lambda histories: iter([[0, 1], [1, 2]]))
    with pytest.raises(RunError, match="2 of 4 users were not scored exactly once"):
        ranker.rank(HISTORIES[:4])


def test_too_narrow_a_beam_is_refused():
    with pytest.raises(InputError, match=r"decoding\.beams=9"):
        ranker_of(beams=9)


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 5))
def test_a_sample_is_seeded_ascending_and_without_repeats(count, most, seed):
    rows = seeded_sample(count, most, seed)
    assert len(rows) == min(count, most)
    assert (np.diff(rows) > 0).all()
    assert set(rows.tolist()) <= set(range(count))
    assert (rows == seeded_sample(count, most, seed)).all()


def test_other_seeds_draw_other_samples():
    assert len({tuple(seeded_sample(100, 10, seed)) for seed in range(5)}) == 5


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"^device=cuda: no CUDA device is there; use device=auto or device=cpu$"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cpu") == torch.device("cpu")
