import pytest
import torch
from decoding.wordy import head_with_words_at, wordy_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import random_catalog

from peso_cli.decoding.scoring import Scorer

CATALOG = random_catalog(25, (3, 4, 5))
WIDTH = 8
SHIFTS = [-300.0, -20.0, 0.0, 20.0, 80.0, 300.0]
"""From words that weigh nothing to words whose mass over that of the codes is more than a float32 holds."""


def head_of(vocabulary, shift=0.0, seed=0):
    torch.manual_seed(seed)
    return head_with_words_at(vocabulary, shift, torch.randn(vocabulary.size, WIDTH)).requires_grad_(False)


def states(count, seed=0):
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def scorer_of(before=7, after=9, shift=0.0, seed=0, normalise="vocabulary"):
    vocabulary = wordy_vocabulary(CATALOG, before, after)
    head = head_of(vocabulary, shift, seed)
    return head, vocabulary, Scorer(head, vocabulary, normalise)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("normalise", ["vocabulary", "level"])
def test_logits_of_a_level_and_the_mass_they_are_a_part_of(level, normalise):
    head, vocabulary, scorer = scorer_of(normalise=normalise)
    hidden = states(6).view(2, 3, WIDTH)
    logits, mass = scorer.codes(hidden, level)
    first, all_logits = int(vocabulary.first_code[level]), head(hidden)
    own = all_logits[..., first : first + CATALOG.level_sizes[level]]
    among = own if normalise == "level" else all_logits[..., vocabulary.sid_ids]
    torch.testing.assert_close(logits, own)
    torch.testing.assert_close(mass, among.logsumexp(-1))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([0, 1, 7, 2048, 5000]),
    st.sampled_from([1, 9, 2048, 2049]),
    st.sampled_from(SHIFTS),
    st.integers(0, 1000),
)
def test_the_mass_is_that_of_the_whole_vocabulary(before, after, shift, seed):
    head, _, scorer = scorer_of(before, after, shift, seed)
    hidden = states(4, seed)
    mass = scorer.log_mass(hidden, scorer.codes(hidden, 0)[1])
    torch.testing.assert_close(mass, head(hidden).logsumexp(1), rtol=2e-6, atol=2e-5)


def test_no_row_is_lost_to_one_whose_words_weigh_more_than_a_float_holds():
    head, vocabulary, scorer = scorer_of(before=3000)
    hidden = states(5)
    hidden[2] = 200 * head.weight[0]
    assert (head(hidden)[2].max() - head(hidden)[2][vocabulary.sid_ids].max()) > 100
    mass = scorer.log_mass(hidden, scorer.codes(hidden, 0)[1])
    torch.testing.assert_close(mass, head(hidden).logsumexp(1), rtol=2e-6, atol=2e-5)


def test_with_words_that_weigh_nothing_the_mass_stays_as_it_was():
    _, _, scorer = scorer_of(shift=-300.0)
    hidden = states(5)
    inside = scorer.codes(hidden, 0)[1]
    assert torch.equal(scorer.log_mass(hidden, inside), inside)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SHIFTS), st.integers(0, 1000))
def test_the_mass_never_falls_below_that_of_the_codes(shift, seed):
    _, _, scorer = scorer_of(4000, 5, shift, seed)
    hidden = states(8, seed)
    inside = scorer.codes(hidden, 0)[1]
    assert (scorer.log_mass(hidden, inside) >= inside).all()


def test_what_was_given_is_left_as_it_is():
    head, _, scorer = scorer_of()
    hidden, weight = states(5), head.weight.clone()
    inside = scorer.codes(hidden, 0)[1]
    before = inside.clone()
    scorer.log_mass(hidden, inside)
    assert torch.equal(inside, before)
    assert torch.equal(head.weight, weight)


def test_the_end_token_has_its_own_logit():
    head, vocabulary, scorer = scorer_of()
    torch.testing.assert_close(scorer.end(states(3)), head(states(3))[:, vocabulary.end])


@pytest.mark.parametrize("shift", [-20.0, 0.0, 300.0])
def test_half_precision_logits_are_summed_in_single_precision(shift):
    vocabulary = wordy_vocabulary(CATALOG, 3000, 9)
    head = head_of(vocabulary, shift).to(torch.bfloat16)
    scorer, hidden = Scorer(head, vocabulary, "vocabulary"), states(4).bfloat16()
    logits, inside = scorer.codes(hidden, 0)
    mass = scorer.log_mass(hidden, inside)
    assert {logits.dtype, inside.dtype, mass.dtype} == {torch.float32}
    torch.testing.assert_close(mass, head(hidden).float().logsumexp(1), rtol=0, atol=2e-3)


def test_a_head_without_a_bias_will_do():
    vocabulary = wordy_vocabulary(CATALOG, 10, 10)
    head = torch.nn.Linear(WIDTH, vocabulary.size, bias=False).requires_grad_(False)
    scorer, hidden = Scorer(head, vocabulary, "vocabulary"), states(3)
    torch.testing.assert_close(scorer.log_mass(hidden, scorer.codes(hidden, 0)[1]), head(hidden).logsumexp(1))
