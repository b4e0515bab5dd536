import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import COMPACT, INSTRUCT, catalog_of, random_catalog, small_llama, vocabulary_of

from peso_cli.backbones.prompts import render
from peso_cli.config.schema import Decoding
from peso_cli.decoding.beam import BeamSearch
from peso_cli.errors import InputError, RunError
from peso_cli.evaluation.ranking import Ranker, Ranking, pick_device, seeded_sample

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
    ranking = ranker_of().rank(HISTORIES, 10)
    assert ranking.rows.shape == ranking.scores.shape == (12, 10)
    for row, scores in zip(ranking.rows, ranking.scores, strict=True):
        assert len(set(row.tolist())) == 10
        assert (row >= 0).all()
        assert (np.diff(scores) <= 0).all()
    # Equal histories get equal lists, wherever they stand.
    assert (ranking.rows[1] == ranking.rows[7]).all()
    alone = ranker_of().rank([HISTORIES[4]], 10)
    assert (alone.rows[0] == ranking.rows[4]).all()
    assert alone.scores[0] == pytest.approx(ranking.scores[4], abs=1e-5)


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda t: t.name)
@pytest.mark.parametrize("constraint", ["trie", "positional"])
def test_the_size_of_batches_changes_nothing(constraint, template):
    whole = ranker_of(10_000, constraint, template=template).rank(HISTORIES, 10)
    for tokens in (1, 150, 300, None):
        parts = ranker_of(tokens, constraint, template=template).rank(HISTORIES, 10)
        assert (parts.rows == whole.rows).all()
        assert parts.scores == pytest.approx(whole.scores, abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_users_changes_nothing(order):
    ranking = ranker_of(150).rank(HISTORIES, 10)
    shuffled = ranker_of(150).rank([HISTORIES[i] for i in order], 10)
    assert (shuffled.rows == ranking.rows[order]).all()
    assert shuffled.scores == pytest.approx(ranking.scores[order], abs=1e-5)


def test_as_many_as_asked_for_and_the_same_ones_first():
    ranker = ranker_of(beams=20)
    twenty, three = ranker.rank(HISTORIES, 20), ranker.rank(HISTORIES, 3)
    assert twenty.rows.shape == (12, 20)
    assert (three.rows == twenty.rows[:, :3]).all()


def test_a_catalog_with_no_more_than_ten_is_ranked_whole():
    catalog = catalog_of([[n // 4, n % 4] for n in range(10)])
    ranking = ranker_of(beams=20, catalog=catalog).rank(HISTORIES[1:2], 10)
    assert sorted(ranking.rows[0].tolist()) == list(range(10))


def test_sequences_that_no_item_carries_keep_their_places():
    ranking = ranker_of(constraint="positional").rank(HISTORIES, 10)
    assert (ranking.rows == -1).any()
    assert np.isfinite(ranking.scores).all()


@pytest.mark.parametrize("constraint", ["trie", "positional"])
@pytest.mark.parametrize("normalise", ["vocabulary", "vocabulary_bfloat16", "level"])
@pytest.mark.parametrize("weight", ["model.norm.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
def test_scores_that_are_no_numbers_rank_nothing(constraint, normalise, weight):
    vocabulary = vocabulary_of(CATALOG)
    model = small_llama(vocabulary)
    with torch.no_grad():
        model.get_parameter(weight)[int(vocabulary.first_code[0])] = float("nan")
    ranker = Ranker(
        model, vocabulary, render(COMPACT, vocabulary, CATALOG), CATALOG, Decoding(10, constraint, normalise)
    )
    with pytest.raises(RunError, match=r"^12 of 12 users have scores that are not finite numbers"):
        ranker.rank(HISTORIES, 10)
    with pytest.raises(RunError, match=r"^12 of 12 users have scores that are not finite numbers"):
        ranker.score(HISTORIES, np.zeros((12, 1), dtype=np.int64))


@pytest.mark.parametrize(
    ("scores", "items", "users"),
    [
        ([[2.0, -np.inf]], [[4, -1]], 0),
        ([[2.0, 1.0]], None, 0),
        ([[2.0, -np.inf], [2.0, 1.0]], [[4, 3], [4, 3]], 1),
        ([[np.inf, 1.0]], [[4, 3]], 1),
        ([[2.0, np.nan], [np.nan, np.nan]], [[4, -1], [-1, -1]], 2),
        ([[2.0, -np.inf]], None, 1),
    ],
)
def test_a_ranking_is_by_finite_numbers_but_where_none_is_left(scores, items, users):
    """Whatever ranks, semantic IDs or items."""
    rows, listed = np.zeros(np.shape(scores), dtype=np.int64), None if items is None else np.array(items)
    if users:
        with pytest.raises(RunError, match=f"^{users} of {len(scores)} users have scores that are not finite numbers"):
            Ranking(rows, np.array(scores, np.float32), listed)
    else:
        Ranking(rows, np.array(scores, np.float32), listed)


def test_nobody_is_ranked_for_nobody():
    ranking = ranker_of().rank([], 10)
    assert ranking.rows.shape == ranking.scores.shape == (0, 10)


def test_progress_counts_users():
    ticks, histories = [], [*HISTORIES, *HISTORIES[:5]]
    ranker_of(100).rank(histories, 10, lambda done, total: ticks.append((done, total)))
    done = [done for done, _ in ticks]
    assert done == sorted(set(done))
    assert {total for _, total in ticks} == {17}
    assert ticks[-1] == (17, 17)
    assert len(ticks) > 2


def watch(patch):
    """From now on, keep the prompts of every search, batch by batch."""
    batches, run = [], BeamSearch.run

    def spy(self, prompts):
        batches.append([prompt.tolist() for prompt in prompts])
        return run(self, prompts)

    patch.setattr(BeamSearch, "run", spy)
    return batches


@pytest.fixture
def searched(monkeypatch):
    return watch(monkeypatch)


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda t: t.name)
def test_equal_histories_are_searched_for_once(searched, template):
    ranker, order = ranker_of(template=template), np.random.default_rng(1).integers(0, 12, 60)
    ranking = ranker.rank([HISTORIES[i] for i in order], 10)
    prompts = [tuple(prompt) for batch in searched for prompt in batch]
    distinct = {tuple(HISTORIES[i]) for i in order}
    assert len(prompts) == len(set(prompts)) == len(distinct) < 12
    searched.clear()
    each = [ranker.rank([HISTORIES[i]], 10) for i in range(12)]
    assert len(searched) == 12
    for row, i in enumerate(order):
        assert (ranking.rows[row] == each[i].rows[0]).all()
        assert ranking.scores[row] == pytest.approx(each[i].scores[0], abs=1e-5)


def test_histories_are_equal_only_if_their_order_is(searched):
    one, other = np.array([1, 2, 3], dtype=np.int32), np.array([1, 3, 2], dtype=np.int32)
    ranker_of().rank([one, other, one.copy()], 10)
    assert sum(map(len, searched)) == 2


def tokens_held(batch, template):
    """Tokens of a batch's prompts as they are in memory, and room for three levels of ten beams each."""
    head = len(render(template, vocabulary_of(CATALOG, template), CATALOG).head)
    return len(batch) * (head - 1 + max(map(len, batch)) + 30)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 500), st.sampled_from([COMPACT, INSTRUCT]))
def test_no_batch_holds_more_tokens_than_it_may(tokens, template):
    with pytest.MonkeyPatch.context() as patch:
        batches = watch(patch)
        ranker_of(tokens, template=template).rank(HISTORIES, 10)
    lengths = [len(prompt) for batch in batches for prompt in batch]
    assert lengths == sorted(lengths)
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        assert len(batch) == 1 or tokens_held(batch, template) <= tokens
        if following:  # the next one had no room
            assert tokens_held([*batch, following[0]], template) > tokens


@pytest.mark.parametrize("most", [1, 3, 100])
def test_no_batch_holds_more_prompts_than_the_device_likes(searched, monkeypatch, most):
    monkeypatch.setattr(BeamSearch, "prompts_at_once", most)
    ranker_of(None).rank(HISTORIES, 10)
    distinct = len({tuple(history) for history in HISTORIES})
    sizes = [min(most, distinct - start) for start in range(0, distinct, most)]
    assert [len(batch) for batch in searched] == sizes


def test_without_a_limit_batches_are_as_large_as_memory_has_room_for(searched, monkeypatch):
    monkeypatch.setattr(BeamSearch, "tokens_in_memory", lambda self: 100)
    ranker_of(None).rank(HISTORIES, 10)
    assert len(searched) > 2
    assert all(len(batch) == 1 or tokens_held(batch, COMPACT) <= 100 for batch in searched)


@torch.no_grad()
def plain_scores(template, history):
    """The score of every semantic ID after a history, by one plain forward over the whole prompt."""
    vocabulary = vocabulary_of(CATALOG, template)
    prompt = render(template, vocabulary, CATALOG)
    begin, sids = prompt.tokens(history), vocabulary.sid_tokens(CATALOG.sids)
    rows = np.column_stack([np.tile(begin, (len(sids), 1)), sids, np.full(len(sids), vocabulary.end)])
    log_p = MODELS[template.name](torch.from_numpy(rows)).logits.log_softmax(-1)[:, len(begin) - 1 : -1]
    return log_p.gather(2, torch.from_numpy(rows[:, len(begin) :, None])).squeeze(2).mean(1).numpy()


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda t: t.name)
@pytest.mark.parametrize("histories", [[1], [1, 7], [0, 1, 2, 3]], ids=str)
def test_all_are_ranked_by_their_own_scores_those_without_a_history_too(template, histories):
    chosen = [HISTORIES[i] for i in histories]
    assert not len(HISTORIES[1])
    ranking = ranker_of(beams=30, template=template).rank(chosen, 30)
    for row, history in enumerate(chosen):
        scores = plain_scores(template, history)
        assert ranking.rows[row].tolist() == np.argsort(-scores).tolist()
        assert ranking.scores[row] == pytest.approx(np.sort(scores)[::-1], abs=1e-5)


def test_a_user_who_is_left_out_is_a_failure(monkeypatch):
    ranker = ranker_of()
    monkeypatch.setattr(ranker, "_batches", lambda histories: iter([[0, 1], [1, 2]]))
    with pytest.raises(RunError, match="2 of 4 histories were not scored exactly once"):
        ranker.rank(HISTORIES[:4], 10)


def test_too_narrow_a_beam_or_too_small_a_catalog_is_refused(searched):
    with pytest.raises(InputError, match=r"decoding\.beams=9"):
        ranker_of(beams=9).rank(HISTORIES, 10)
    with pytest.raises(InputError, match="30 distinct semantic IDs"):
        ranker_of(beams=40).rank(HISTORIES, 31)
    assert searched == []


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


# Given candidates


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda t: t.name)
@pytest.mark.parametrize("constraint", ["trie", "positional"])
def test_what_is_ranked_is_scored_alike(constraint, template):
    ranker = ranker_of(constraint=constraint, template=template)
    ranking = ranker.rank(HISTORIES, 10)
    scores = ranker.score(HISTORIES, ranking.rows)
    assert scores.dtype == np.float32
    assert scores[ranking.rows >= 0] == pytest.approx(ranking.scores[ranking.rows >= 0], abs=1e-5)
    assert (scores[ranking.rows < 0] == -np.inf).all()


def test_any_semantic_id_has_its_own_score_whoever_else_asks():
    """Equal histories ask for different ones; some for none, some for one twice."""
    candidates = np.random.default_rng(3).integers(-1, 30, (12, 6))
    candidates[4] = -1
    scores = ranker_of(beams=1).score(HISTORIES, candidates)
    for history, rows, found in zip(HISTORIES, candidates, scores.tolist(), strict=True):
        expected = plain_scores(COMPACT, history)
        assert found == pytest.approx([expected[row] if row >= 0 else -np.inf for row in rows], abs=1e-5)


@pytest.mark.parametrize(("tokens", "widest"), [(1, 768), (150, 768), (None, 768), (None, 4), (None, 1)])
def test_how_much_is_scored_at_once_changes_no_score(monkeypatch, tokens, widest):
    candidates = np.random.default_rng(4).integers(-1, 30, (12, 9))
    whole = ranker_of().score(HISTORIES, candidates)
    monkeypatch.setattr(BeamSearch, "widest", widest)
    parts = ranker_of(tokens).score(HISTORIES, candidates)
    assert parts == pytest.approx(whole, abs=1e-5)


def test_equal_histories_are_read_once(monkeypatch):
    read, walk = [], BeamSearch.walk
    monkeypatch.setattr(
        BeamSearch,
        "walk",
        lambda self, prompts, advance: read.extend(map(tuple, prompts)) or walk(self, prompts, advance),
    )
    ranker_of().score(HISTORIES * 3, np.arange(36)[:, None] % 30)
    assert len(read) == len(set(read)) == len({tuple(history) for history in HISTORIES})


def test_nothing_is_scored_for_nobody():
    ranker, none = ranker_of(), np.full((12, 3), -1)
    assert ranker.score([], none[:0]).shape == (0, 3)
    assert (ranker.score(HISTORIES, none) == -np.inf).all()
    assert ranker.score(HISTORIES, none[:, :0]).shape == (12, 0)


@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda t: t.name)
def test_histories_without_an_item_score_as_if_they_were_asked_for_alone(template):
    ranker, history = ranker_of(template=template), HISTORIES[2]
    candidates = np.array([3, 17, 29, 4, 0])
    found = ranker.leave_one_out(history, candidates)
    rows = np.broadcast_to(CATALOG.sid_of[candidates], (6, 5))
    shorter = [np.delete(history, place) for place in range(5)]
    # Scores are means over three codes and the end token.
    alone = 4 * ranker.score([history, *shorter], rows)
    assert found.whole == pytest.approx(alone[0], abs=1e-4)
    assert found.without == pytest.approx(alone[1:], abs=1e-4)
