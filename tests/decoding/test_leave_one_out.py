"""Scores of histories without each item, from one tree of tokens, against a plain forward for each."""

import numpy as np
import pytest
import torch
from decoding.naive import CATALOG, log_probabilities
from hypothesis import given
from hypothesis import strategies as st
from worlds import COMPACT, INSTRUCT, small_llama, vocabulary_of

from peso_cli.backbones.attention import decoder_states
from peso_cli.backbones.prompts import render
from peso_cli.decoding.leave_one_out import leave_one_out, shortened
from peso_cli.decoding.scoring import Scorer
from peso_cli.decoding.token_tree import token_tree


def beginnings(sequences):
    """What the sequences begin with, each once."""
    return {tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))}


sequences = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8)


@given(sequences)
def test_a_tree_holds_every_beginning_once_and_every_sequence(sequences):
    tree = token_tree([np.array(each) for each in sequences])
    assert len(tree) == len(beginnings(sequences))
    for sequence, places in zip(sequences, tree.places, strict=True):
        own = places[places >= 0]
        assert tree.tokens[own].tolist() == sequence
        assert tree.depths[own].tolist() == list(range(len(sequence)))
        assert np.flatnonzero(tree.sees[own[-1]]).tolist() == sorted(own)


def test_states_of_a_tree_are_those_of_each_sequence_alone():
    model = small_llama(vocabulary_of(CATALOG))
    rows = [np.array(each) for each in ([1, 5, 6, 7], [1, 5, 8], [1, 5, 6, 9], [4])]
    tree = token_tree(rows)
    with torch.no_grad():
        for row, places in zip(rows, tree.places, strict=True):
            alone = decoder_states(model, torch.from_numpy(row)[None], None, None, None)
            assert torch.allclose(tree.states(model, places[places >= 0]), alone, atol=1e-5)


@pytest.mark.parametrize("normalise", ["vocabulary", "level"])
@pytest.mark.parametrize("template", [COMPACT, INSTRUCT], ids=lambda template: template.name)
@pytest.mark.parametrize("history", [[], [3], [7, 0, 7, 12]], ids=len)
def test_scores_are_those_of_a_plain_forward_for_each_history(template, normalise, history):
    vocabulary = vocabulary_of(CATALOG, template)
    model, prompt = small_llama(vocabulary), render(template, vocabulary, CATALOG)
    scorer = Scorer(model.get_output_embeddings(), vocabulary, normalise)
    history, candidates = np.array(history, dtype=np.int32), np.array([1, 2, 7, 24])
    found = leave_one_out(model, scorer, prompt, CATALOG, history, candidates)
    assert len(shortened(history)) == len(history) + 1
    expected = [
        [likelihood(model, prompt.tokens(each), item, normalise, vocabulary) for item in candidates]
        for each in shortened(history)
    ]
    assert np.allclose(found.whole, expected[0], atol=1e-4)
    assert found.without.shape == (len(history), 4)
    assert np.allclose(found.contributions, expected[0] - np.reshape(expected[1:], (-1, 4)), atol=1e-4)


def likelihood(model, prompt, item, normalise, vocabulary):
    codes = CATALOG.codes[item].tolist()
    steps = [
        log_probabilities(model, prompt, codes[:level], normalise, vocabulary)[code].item()
        for level, code in enumerate(codes)
    ]
    end = [log_probabilities(model, prompt, codes, normalise, vocabulary)[0].item()]
    return sum(steps + (end if normalise == "vocabulary" else []))


def test_more_candidates_than_go_through_together_and_the_tokens_read():
    vocabulary = vocabulary_of(CATALOG)
    model, prompt = small_llama(vocabulary), render(COMPACT, vocabulary, CATALOG)
    scorer = Scorer(model.get_output_embeddings(), vocabulary, "vocabulary")
    history = np.array([4, 9, 2, 11], dtype=np.int32)

    def ask(candidates):
        return leave_one_out(model, scorer, prompt, CATALOG, history, np.array(candidates))

    whole, parts = ask(range(25)), [ask(range(16)), ask(range(16, 25))]
    assert np.allclose(whole.without, np.concatenate([part.without for part in parts], axis=1), atol=1e-5)
    assert whole.tokens == sum(part.tokens for part in parts)
    many = np.arange(40, dtype=np.int32) % 25
    long = leave_one_out(model, scorer, prompt, CATALOG, many, np.array([5]))
    assert long.without.shape == (40, 1)
    for place in (0, 22, 23, 39):
        alone = likelihood(model, prompt.tokens(np.delete(many, place)), 5, "vocabulary", vocabulary)
        assert long.without[place] == pytest.approx(alone, abs=1e-4)
    one = ask([5])
    rows = [[*prompt.tokens(each), *prompt.answers[5]] for each in shortened(history)]
    assert one.tokens == len(beginnings(rows))
    assert one.alone == sum(map(len, rows))
