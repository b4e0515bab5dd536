"""Searches over vocabularies that are mostly words."""

import numpy as np
import pytest
import torch
from decoding.naive import CATALOG, naive, prompts_of, search
from decoding.wordy import words_are, wordy_llama, wordy_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import random_catalog

from peso_cli.decoding import beam
from peso_cli.decoding.scoring import Scorer

CODES = sum(CATALOG.level_sizes)
MANY = random_catalog(200, (8, 8, 8))


def assert_found_as(found, expected, atol=1e-5):
    assert torch.equal(found.codes, expected.codes)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-6, atol=atol)


def assert_as_the_naive(model, vocabulary, beams, prompts, found):
    for row, prompt in enumerate(prompts):
        expected = naive(model, prompt, beams, vocabulary=vocabulary)
        assert found.codes[row].tolist() == [list(codes) for codes, _ in expected]
        assert found.scores[row].tolist() == pytest.approx([score for _, score in expected], rel=1e-6, abs=1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from([-30.0, -8.0, 0.0, 4.0, 120.0]),
    st.sampled_from([(3000, 0), (5, 2500), (2500, 600)]),
    st.integers(1, 7),
    st.booleans(),
    st.integers(0, 1000),
)
def test_scores_are_over_all_words_however_much_they_weigh(shift, words, beams, lazy, seed):
    vocabulary = wordy_vocabulary(CATALOG, *words, end=seed % words[0])
    model, rng = wordy_llama(vocabulary, shift, seed), np.random.default_rng(seed)
    prompts = [rng.integers(0, vocabulary.size, length) for length in (3, 1)]
    with words_are(lazy):
        found = search(model, beams, vocabulary=vocabulary).run(prompts)
    assert_as_the_naive(model, vocabulary, beams, prompts, found)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("end", [0, 30, 59, 60 + CODES, 80 + CODES, 99 + CODES])
def test_answers_may_end_with_any_row_outside_the_codes(end, lazy):
    vocabulary = wordy_vocabulary(CATALOG, 60, 40, end)
    model, prompts = wordy_llama(vocabulary, -2.0), prompts_of([3, 1])
    with words_are(lazy):
        found = search(model, 6, vocabulary=vocabulary).run(prompts)
    assert_as_the_naive(model, vocabulary, 6, prompts, found)


@pytest.mark.parametrize("shift", [-12.0, 0.0, 4.0, 120.0])
@pytest.mark.parametrize("normalise", ["vocabulary", "vocabulary_bfloat16"])
def test_asking_where_it_matters_finds_what_asking_for_all_finds(monkeypatch, shift, normalise):
    vocabulary, found = wordy_vocabulary(MANY, 300, 300), []
    for rounds in (10**9, 0):
        monkeypatch.setattr(beam, "_PATIENCE", rounds)
        with words_are(lazy=True):
            wide = search(wordy_llama(vocabulary, shift), 16, catalog=MANY, vocabulary=vocabulary, normalise=normalise)
        found.append(wide.run(prompts_of([3, 1, 2, 3])))
    assert_found_as(found[1], found[0])


@pytest.mark.parametrize("shift", [-12.0, 0.0, 4.0, 120.0])
def test_asking_where_it_matters_finds_what_comparing_at_once_finds(shift):
    vocabulary, found = wordy_vocabulary(MANY, 300, 300), []
    for lazy in (False, True):
        with words_are(lazy):
            wide = search(wordy_llama(vocabulary, shift), 16, catalog=MANY, vocabulary=vocabulary)
        found.append(wide.run(prompts_of([3, 1, 2, 3])))
    assert_found_as(found[1], found[0])


@pytest.fixture
def asked(monkeypatch):
    """For how many beams the mass of the words was worked out, call by call: a list for each level and for the end."""
    counts = []

    def spy(name, note):
        plain = getattr(Scorer, name)
        monkeypatch.setattr(Scorer, name, lambda self, hidden, *more: note(hidden) or plain(self, hidden, *more))

    spy("codes", lambda hidden: counts.append([]))
    spy("end_log_probability", lambda hidden: counts.append([]))
    spy("log_mass", lambda hidden: counts[-1].append(len(hidden)))
    return counts


@pytest.mark.parametrize("shift", [-12.0, 4.0])
def test_the_mass_of_words_is_asked_for_only_where_it_can_matter(asked, shift):
    vocabulary, beams = wordy_vocabulary(MANY, 300, 300), 16
    prompts, there_are = prompts_of([3] * 4), [4 * 1, 4 * 8, 4 * beams]
    with words_are(lazy=True):
        search(wordy_llama(vocabulary, shift), beams, catalog=MANY, vocabulary=vocabulary).run(prompts)
    *searching, last = asked
    assert last == [4 * beams]  # all that are left end
    if shift < 0:  # words that weigh little change no choice: asking once a level is enough, and for few
        assert [len(counts) for counts in searching] == [1, 1, 1]
        assert sum(map(sum, searching)) < 0.8 * sum(there_are)
    else:  # for none twice
        assert all(sum(counts) <= most for counts, most in zip(searching, there_are, strict=True))


def test_few_words_are_never_asked_for(asked):
    vocabulary = wordy_vocabulary(MANY, 300, 300)
    search(wordy_llama(vocabulary, 4.0), 16, catalog=MANY, vocabulary=vocabulary).run(prompts_of([3] * 4))
    assert asked == [[], [], [], []]


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_when_patience_is_over_all_that_is_left_is_asked_for(asked, monkeypatch, patience):
    vocabulary, prompts = wordy_vocabulary(MANY, 300, 300), prompts_of([3] * 4)
    found, counts = [], []
    for rounds in (10**9, patience):
        monkeypatch.setattr(beam, "_PATIENCE", rounds)
        asked.clear()
        with words_are(lazy=True):
            wide = search(wordy_llama(vocabulary, 0.0, 2), 16, catalog=MANY, vocabulary=vocabulary)
        found.append(wide.run(prompts))
        counts.append(asked[:-1])
    assert max(map(len, counts[0])) == 3  # words weigh so much that answers raise new questions
    for patiently, hastily, there_are in zip(*counts, [4 * 1, 4 * 8, 4 * 16], strict=True):
        first, more = patiently[:patience], len(patiently) > patience
        assert hastily == ([*first, there_are - sum(first)] if more else first)
    assert_found_as(found[1], found[0])


@pytest.mark.parametrize("lazy", [False, True])
def test_probabilities_of_a_level_never_ask_for_the_mass_of_words(asked, lazy):
    vocabulary = wordy_vocabulary(CATALOG, 300, 300)
    with words_are(lazy):
        wide = search(wordy_llama(vocabulary, 0.0), 10, vocabulary=vocabulary, normalise="level")
    wide.run(prompts_of([3, 1]))
    assert asked == [[], [], []]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("shift", [-30.0, 0.0, 120.0])
@pytest.mark.parametrize("beams", [4, 10, 25])
def test_among_words_and_behind_a_prefix_ties_go_to_the_lower_codes(shift, beams, lazy):
    vocabulary = wordy_vocabulary(CATALOG, 2100, 30)
    model = wordy_llama(vocabulary, shift)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    prefix, *prompts = prompts_of([3, 2, 1, 5])
    with words_are(lazy):
        found = search(model, beams, vocabulary=vocabulary, prefix=prefix).run(prompts)
    assert found.nodes.tolist() == [list(range(beams))] * 3
    assert found.codes[0].tolist() == CATALOG.sids[:beams].tolist()


# Words in bfloat16


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("lazy", "shift", "by"), [(True, -8.0, 1e-3), (True, 0.0, 5e-3), (False, 0.0, 0.0)])
def test_many_words_in_bfloat16_change_scores_by_little_and_these_lists_not_at_all(lazy, seed, shift, by):
    """By a thousandth as after training; by a few where words hold nearly all the mass, as before it."""
    vocabulary = wordy_vocabulary(MANY, 1500, 1100)
    model, prompts, found = wordy_llama(vocabulary, shift, seed), prompts_of([3, 1, 2, 3]), []
    for normalise in ("vocabulary", "vocabulary_bfloat16"):
        with words_are(lazy):
            wide = search(model, 16, catalog=MANY, vocabulary=vocabulary, normalise=normalise)
        found.append(wide.run(prompts))
    assert_found_as(found[1], found[0], atol=by)
    assert torch.equal(found[1].scores, found[0].scores) is not lazy


def test_without_words_there_is_nothing_to_take_in_bfloat16():
    """Codes and end token are exact, and all there is."""
    vocabulary = wordy_vocabulary(CATALOG, 1, 0)
    model, prompts = wordy_llama(vocabulary, 0.0), [np.array([3, 5]), np.array([0])]
    exact, other = (
        search(model, 10, vocabulary=vocabulary, normalise=normalise).run(prompts)
        for normalise in ("vocabulary", "vocabulary_bfloat16")
    )
    assert torch.equal(other.codes, exact.codes)
    assert torch.equal(other.scores, exact.scores)
