import copy

import numpy as np
import pytest
import torch
from decoding.naive import CATALOG, VOCABULARY, prompts_of, search, tokens_read
from decoding.wordy import words_are, wordy_llama, wordy_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import catalog_of, small_llama

from peso_cli.decoding.likelihood import distinct_prefixes, likelihoods

SIDS = CATALOG.sids
NONE = -np.inf


@pytest.fixture(scope="module")
def llama():
    return small_llama(VOCABULARY)


@torch.no_grad()
def plainly(model, prompt, row, normalise="vocabulary", vocabulary=VOCABULARY):
    """The mean log-probability of one semantic ID's tokens, by one forward in double precision."""
    tokens = [*prompt, *vocabulary.sid_tokens(SIDS[row]), vocabulary.end]
    logits = copy.deepcopy(model).double()(torch.tensor([tokens])).logits[0, len(prompt) - 1 : -1]
    if normalise == "level":
        spans = zip(vocabulary.first_code, CATALOG.level_sizes, SIDS[row], strict=True)
        parts = [logits[at, first : first + size].log_softmax(-1)[c] for at, (first, size, c) in enumerate(spans)]
        return sum(map(float, parts)) / (len(parts) + 1)
    log_p = logits.log_softmax(-1)
    return float(np.mean([float(log_p[at, token]) for at, token in enumerate(tokens[len(prompt) :])]))


@pytest.mark.parametrize("normalise", ["vocabulary", "vocabulary_bfloat16", "level"])
@pytest.mark.parametrize("constraint", ["trie", "positional"])
@pytest.mark.parametrize("lazy", [False, True])
def test_what_a_search_finds_has_the_same_scores(constraint, normalise, lazy):
    vocabulary = wordy_vocabulary(CATALOG, 40, 30)
    model, prompts = wordy_llama(vocabulary, -1.0), prompts_of([1, 4, 4, 9])
    with words_are(lazy):
        engine = search(model, 12, constraint, vocabulary=vocabulary, normalise=normalise)
    found = engine.run(prompts)
    rows = engine.constraint.sid_rows(found.nodes)
    scores = likelihoods(engine, prompts, rows, SIDS)
    assert (rows >= 0).sum() > 12
    assert scores[rows >= 0] == pytest.approx(found.scores.numpy()[rows >= 0], abs=1e-5)
    assert (scores[rows < 0] == NONE).all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(-1, 24), min_size=4, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["vocabulary", "level"]),
    st.sampled_from(["trie", "positional"]),
    st.integers(0, 3),
)
def test_any_candidates_have_the_scores_of_a_plain_forward(llama, rows, normalise, constraint, before):
    """In any order, twice, or none; behind a prefix that is read once or without one."""
    (prefix, *prompts) = prompts_of([before, *range(1, len(rows) + 1)], seed=before)
    engine = search(llama, 4, constraint, normalise=normalise, prefix=prefix)
    found = likelihoods(engine, prompts, np.array(rows), SIDS)
    assert found.dtype == np.float32
    for prompt, asked, scores in zip(prompts, rows, found.tolist(), strict=True):
        for row, score in zip(asked, scores, strict=True):
            expected = plainly(llama, [*prefix, *prompt], row, normalise) if row >= 0 else NONE
            assert score == pytest.approx(expected, abs=1e-5)


def test_all_semantic_ids_at_once(llama):
    engine, prompts = search(llama, len(SIDS)), prompts_of([2, 5])
    scores = likelihoods(engine, prompts, np.tile(np.arange(len(SIDS)), (2, 1)), SIDS)
    found = engine.run(prompts)
    assert np.argsort(-scores, axis=1).tolist() == found.nodes.tolist()


def test_nothing_is_read_twice(llama, monkeypatch):
    seen = tokens_read(monkeypatch)
    sids = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=np.int32)
    prefix, *prompts = prompts_of([3, 2, 5])
    engine = search(llama, 4, catalog=catalog_of([*sids, [2, 3, 4]]), prefix=prefix)
    likelihoods(engine, prompts, np.array([[3, 0, 1, -1], [0, 1, 2, 0]]), sids)
    assert seen == [3, 7, 2 * 2, 2 * 2, 2 * 3]


def test_prefixes_are_distinct_and_lead_to_their_candidates():
    candidates = np.array([[[0, 0], [0, 1], [2, 0]], [[1, 1], [1, 1], [1, 1]]])
    found = distinct_prefixes(candidates)
    assert [level.tolist() for level in found.parents] == [[[0, 0], [0, 0]], [[0, 0, 1], [0, 0, 0]]]
    assert [level.tolist() for level in found.codes] == [[[0, 2], [1, 1]], [[0, 1, 0], [1, 1, 1]]]
    assert found.place.tolist() == [[0, 1, 2], [0, 0, 0]]
