import pytest
import torch
from decoding.wordy import head_with_words_at, words_are, wordy_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import random_catalog

from peso_cli.decoding import scoring
from peso_cli.decoding.scoring import Scorer

CATALOG = random_catalog(25, (3, 4, 5))
CODES = sum(CATALOG.level_sizes)
WIDTH = 8
SHIFTS = [-300.0, -20.0, 0.0, 20.0, 80.0, 300.0]
"""From words that weigh nothing to words whose mass over that of the codes is more than a float32 holds."""


def head_of(vocabulary, shift=0.0, seed=0):
    torch.manual_seed(seed)
    return head_with_words_at(vocabulary, shift, torch.randn(vocabulary.size, WIDTH)).requires_grad_(False)


def states(count, seed=0):
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def scorer(head, vocabulary, normalise="vocabulary", lazy=True):
    with words_are(lazy):
        return Scorer(head, vocabulary, normalise)


def scorer_of(before=7, after=9, end=None, shift=0.0, seed=0):
    vocabulary = wordy_vocabulary(CATALOG, before, after, end)
    head = head_of(vocabulary, shift, seed)
    return head, vocabulary, scorer(head, vocabulary)


def assert_whole(mass, logits):
    torch.testing.assert_close(mass, logits.logsumexp(-1), rtol=2e-6, atol=2e-5)


def log_probabilities(some, hidden, level):
    """What a search makes of a level's codes when it has asked for all."""
    logits, mass = some.codes(hidden, level)
    if some.lazy:
        mass = some.log_mass(hidden.flatten(0, -2), mass.flatten()).view_as(mass)
    return logits - mass[..., None]


def assert_level(found, vocabulary, level, expected):
    first = int(vocabulary.first_code[level])
    torch.testing.assert_close(found, expected[..., first : first + CATALOG.level_sizes[level]], rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("normalise", ["vocabulary", "vocabulary_bfloat16"])
def test_logits_of_a_level_and_the_mass_they_are_a_part_of(level, normalise):
    """With words left to be asked for, the mass is that of the codes and the end token, exactly."""
    vocabulary = wordy_vocabulary(CATALOG, 7, 9)
    head, hidden = head_of(vocabulary), states(6).view(2, 3, WIDTH)
    logits, mass = scorer(head, vocabulary, normalise).codes(hidden, level)
    all_logits = head(hidden)
    assert_level(logits, vocabulary, level, all_logits)
    torch.testing.assert_close(mass, all_logits[..., [*vocabulary.sid_ids, vocabulary.end]].logsumexp(-1))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_probabilities_among_the_codes_of_a_level(level):
    vocabulary = wordy_vocabulary(CATALOG, 7, 9)
    head, hidden = head_of(vocabulary), states(6).view(2, 3, WIDTH)
    found = log_probabilities(scorer(head, vocabulary, "level"), hidden, level)
    first = int(vocabulary.first_code[level])
    own = head(hidden)[..., first : first + CATALOG.level_sizes[level]]
    torch.testing.assert_close(found, own.log_softmax(-1))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("normalise", ["vocabulary", "vocabulary_bfloat16"])
def test_few_words_are_compared_at_once_and_exactly(level, shift, normalise):
    vocabulary = wordy_vocabulary(CATALOG, 7, 9)
    head, hidden = head_of(vocabulary, shift), states(1200).view(2, 600, WIDTH)
    eager = scorer(head, vocabulary, normalise, lazy=False)
    logits, mass = eager.codes(hidden, level)
    assert mass.shape == (2, 600)
    assert_level(logits - mass[..., None], vocabulary, level, head(hidden).log_softmax(-1))


def test_how_many_words_are_few(monkeypatch):
    monkeypatch.setattr(scoring, "_FEW", 16)
    for before, after, lazy in ((8, 9, False), (9, 9, True), (17, 0, False), (18, 0, True)):  # one of them ends answers
        vocabulary = wordy_vocabulary(CATALOG, before, after)
        head = head_of(vocabulary)
        assert Scorer(head, vocabulary, "vocabulary").lazy is lazy
        assert Scorer(head, vocabulary, "vocabulary_bfloat16").lazy is lazy
        assert Scorer(head, vocabulary, "level").lazy is False


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 7, 2048, 5000]),
    st.sampled_from([0, 1, 9, 2048, 2049]),
    st.integers(0, 4999),
    st.sampled_from(SHIFTS),
    st.integers(0, 1000),
)
def test_the_mass_is_that_of_the_whole_vocabulary(before, after, end, shift, seed):
    head, vocabulary, some = scorer_of(before, after, end % before, shift, seed)
    hidden = states(4, seed)
    assert_level(log_probabilities(some, hidden, 0), vocabulary, 0, head(hidden).log_softmax(-1))


@pytest.mark.parametrize("shift", [-2.0, 300.0])
@pytest.mark.parametrize(
    ("before", "after", "end"),
    [
        *((3000, 9, end) for end in (0, 1, 1023, 1024, 2999)),  # before the codes: first, at a block's border, last
        *((7, 3000, 7 + CODES + end) for end in (0, 1, 1023, 1024, 2999)),  # the same behind the codes
        *((1, 9, 0), (1, 0, 0), (0, 9, CODES), (0, 9, CODES + 8), (0, 1, CODES)),  # alone on its side
    ],
)
def test_the_end_token_may_be_any_row_outside_the_codes(before, after, end, shift):
    head, vocabulary, lazy = scorer_of(before, after, end, shift)
    hidden = states(4)
    expected = head(hidden).log_softmax(1)[:, end]
    for some in (lazy, scorer(head, vocabulary, lazy=False)):
        assert_level(log_probabilities(some, hidden, 1), vocabulary, 1, head(hidden).log_softmax(1))
        torch.testing.assert_close(some.end_log_probability(hidden), expected, rtol=2e-6, atol=2e-5)


def test_no_row_is_lost_to_one_whose_words_weigh_more_than_a_float_holds():
    head, vocabulary, some = scorer_of(before=3000)
    hidden = states(5)
    hidden[2] = 200 * head.weight[0]
    known = [*vocabulary.sid_ids, vocabulary.end]
    assert (head(hidden)[2].max() - head(hidden)[2][known].max()) > 100
    assert_whole(some.log_mass(hidden, some.codes(hidden, 0)[1]), head(hidden))


def test_with_words_that_weigh_nothing_the_mass_stays_as_it_was():
    _, _, some = scorer_of(shift=-300.0)
    hidden = states(5)
    known = some.codes(hidden, 0)[1]
    assert torch.equal(some.log_mass(hidden, known), known)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SHIFTS), st.integers(0, 1000), st.sampled_from(["vocabulary", "vocabulary_bfloat16"]))
def test_the_mass_never_falls_below_that_of_codes_and_end_token(shift, seed, normalise):
    vocabulary = wordy_vocabulary(CATALOG, 4000, 5)
    some, hidden = scorer(head_of(vocabulary, shift, seed), vocabulary, normalise), states(8, seed)
    known = some.codes(hidden, 0)[1]
    assert (some.log_mass(hidden, known) >= known).all()


@pytest.mark.parametrize("normalise", ["vocabulary", "vocabulary_bfloat16"])
def test_what_was_given_is_left_as_it_is(normalise):
    vocabulary = wordy_vocabulary(CATALOG, 7, 9)
    head, hidden = head_of(vocabulary), states(5)
    weight, some = head.weight.clone(), scorer(head, vocabulary, normalise)
    known = some.codes(hidden, 0)[1]
    given_first = known.clone(), hidden.clone()
    some.log_mass(hidden, known)
    assert torch.equal(known, given_first[0])
    assert torch.equal(hidden, given_first[1])
    assert torch.equal(head.weight, weight)


def test_the_end_token_has_its_own_logit():
    head, vocabulary, some = scorer_of()
    torch.testing.assert_close(some.end(states(3)), head(states(3))[:, vocabulary.end])


@pytest.mark.parametrize("shift", [-20.0, 0.0, 300.0])
def test_half_precision_logits_are_summed_in_single_precision(shift):
    vocabulary = wordy_vocabulary(CATALOG, 3000, 9)
    head = head_of(vocabulary, shift).to(torch.bfloat16)
    some, hidden = scorer(head, vocabulary), states(4).bfloat16()
    logits, known = some.codes(hidden, 0)
    mass = some.log_mass(hidden, known)
    assert {logits.dtype, known.dtype, mass.dtype} == {torch.float32}
    torch.testing.assert_close(mass, head(hidden).float().logsumexp(1), rtol=0, atol=2e-3)


@pytest.mark.parametrize("normalise", ["vocabulary", "vocabulary_bfloat16"])
def test_a_head_without_a_bias_will_do(normalise):
    vocabulary = wordy_vocabulary(CATALOG, 10, 10)
    head = torch.nn.Linear(WIDTH, vocabulary.size, bias=False).requires_grad_(False)
    some, hidden = scorer(head, vocabulary, normalise), states(3)
    mass, by = some.log_mass(hidden, some.codes(hidden, 0)[1]), 1e-5 if normalise == "vocabulary" else 2e-3
    torch.testing.assert_close(mass, head(hidden).logsumexp(1), rtol=0, atol=by)


# Words in bfloat16


def of_both(head, vocabulary, hidden):
    """The known and the whole mass, and the end token's log-probability: exactly, and with words in bfloat16."""
    for normalise in ("vocabulary", "vocabulary_bfloat16"):
        some = scorer(head, vocabulary, normalise)
        known = some.codes(hidden, 0)[1]
        yield known, some.log_mass(hidden, known), some.end_log_probability(hidden)


@pytest.mark.parametrize("common", [0.0, 100.0])
def test_words_in_bfloat16_weigh_nearly_the_same_however_much_they_have_in_common(common):
    """Words that all have a large logit have it from what their rows share, which bfloat16 would round to halves."""
    vocabulary = wordy_vocabulary(CATALOG, 3000, 2000)
    head, hidden = head_of(vocabulary), states(20)
    head.weight.mul_(0.5).add_(common * torch.eye(WIDTH)[0])
    (known, exact, end), (same, mass, other_end) = of_both(head, vocabulary, hidden)
    assert torch.equal(same, known)
    torch.testing.assert_close(mass, exact, rtol=0, atol=1e-2)
    torch.testing.assert_close(other_end, end, rtol=0, atol=1e-2)
    assert not torch.equal(mass, exact)


def test_without_words_there_is_nothing_to_take_in_bfloat16():
    vocabulary = wordy_vocabulary(CATALOG, 1, 0)
    exact, other = of_both(head_of(vocabulary), vocabulary, states(5))
    for one, same in zip(exact, other, strict=True):
        assert torch.equal(same, one)


@pytest.mark.parametrize("shift", [-20.0, 0.0, 300.0])
def test_words_of_a_half_precision_head_too(shift):
    vocabulary = wordy_vocabulary(CATALOG, 3000, 9)
    head, hidden = head_of(vocabulary, shift).to(torch.bfloat16), states(4).bfloat16()
    (known, exact, _), (same, mass, _) = of_both(head, vocabulary, hidden)
    assert torch.equal(same, known)
    assert mass.dtype == torch.float32
    torch.testing.assert_close(mass, exact, rtol=1e-3, atol=2e-2)
