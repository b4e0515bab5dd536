from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import COMPACT, INSTRUCT, block_of, random_catalog, small_llama, vocabulary_of

from peso_cli.backbones.prompts import render
from peso_cli.data.examples import examples
from peso_cli.training.packing import Packer, chained, make_batch, one_by_one
from peso_cli.training.steps import label_loss

CATALOG = random_catalog(30, (3, 4, 5))
PROMPTS = {t.name: render(t, vocabulary_of(CATALOG, t), CATALOG) for t in (COMPACT, INSTRUCT)}

events = st.lists(st.integers(0, 29), max_size=9)
populations = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(events, events), max_size=6)
names = st.sampled_from(sorted(PROMPTS))


def random_block(users, seed=0, events=12, stage=2):
    """Users of whom many have more events than the window."""
    rng = np.random.default_rng(seed)
    return block_of(
        {
            f"u{n}": (rng.integers(0, 30, rng.integers(0, 6)).tolist(), rng.integers(0, 30, size).tolist())
            for n, size in enumerate(rng.integers(1, events, users))
        },
        stage,
    )


def whole(sequences, prompt):
    """All sequences in one batch."""
    return make_batch([(sequences, row) for row in range(len(sequences))], prompt)


def asked(batch, levels):
    """What a batch asks, counted: (all tokens seen before an answer, the answer with its end token).

    Checks along the way that each code of an answer is seen before the next one is asked.
    """
    length, found = batch.tokens.shape[1], Counter()
    for at, labels in zip(batch.at.reshape(-1, levels + 1), batch.labels.reshape(-1, levels + 1), strict=True):
        row, place = divmod(int(at[0]), length)
        assert (at == at[0] + np.arange(levels + 1)).all()
        assert batch.tokens[row, place + 1 : place + 1 + levels].tolist() == labels[:levels].tolist()
        found[tuple(batch.tokens[row, : place + 1].tolist()), tuple(labels.tolist())] += 1
    return found


def wanted(found, prompt):
    """The same from the examples themselves."""
    return Counter(
        (
            tuple(prompt.tokens(found.history(i)).tolist()),
            (*prompt.answers[found.target_items[i]].tolist(), prompt.end),
        )
        for i in range(len(found))
    )


@settings(max_examples=80, deadline=None)
@given(populations, st.integers(1, 7), st.sampled_from(["train", "valid", "test"]), names)
def test_one_by_one_asks_just_the_examples(users, window, split, name):
    found, prompt = examples(block_of(users), split, window), PROMPTS[name]
    if len(found):
        assert asked(whole(one_by_one(found), prompt), 3) == wanted(found, prompt)
    assert len(one_by_one(found)) == len(found)


@settings(max_examples=80, deadline=None)
@given(populations, st.integers(1, 7), st.sampled_from(["train", "valid", "test"]))
def test_chained_asks_just_the_examples(users, window, split):
    found, prompt = examples(block_of(users), split, window), PROMPTS["compact"]
    if len(found):
        assert asked(whole(chained(found), prompt), 3) == wanted(found, prompt)
    assert chained(found).targets.sum() == len(found)


@settings(max_examples=80, deadline=None)
@given(populations, st.data())
def test_chained_asks_just_the_examples_that_were_taken(users, data):
    found, prompt = examples(block_of(users), "train", 5), PROMPTS["compact"]
    kept = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    taken = found.take(np.flatnonzero(kept))
    if len(taken):
        assert asked(whole(chained(taken), prompt), 3) == wanted(taken, prompt)


def test_chaining_makes_one_sequence_of_a_user_within_the_window():
    found = examples(block_of({"a": ([1, 2], [3, 4, 5, 6]), "b": ([], [7, 8, 9, 1])}), "train", 5)
    sequences = chained(found)
    assert sequences.targets.tolist() == [2, 2]
    tokens = whole(sequences, PROMPTS["compact"]).tokens
    answers = PROMPTS["compact"].answers
    assert tokens[0].tolist() == [1, *answers[[1, 2, 3, 4]].reshape(-1)]
    assert tokens[1].tolist() == [1, *answers[[7, 8]].reshape(-1)] + [0] * 6


@pytest.mark.parametrize("seed", [0, 1])
def test_chained_and_one_by_one_have_the_same_loss_and_gradient(seed):
    block, prompt = random_block(9, seed), PROMPTS["compact"]
    assert (np.diff(block.starts) > COMPACT.window + 2).any()
    found = examples(block, "train", COMPACT.window)
    results = []
    for sequences in (one_by_one(found), chained(found)):
        model = small_llama(vocabulary_of(CATALOG), seed)
        loss = label_loss(model, whole(sequences, prompt), 0.8)
        loss.backward()
        results.append((loss.item(), torch.cat([p.grad.reshape(-1) for p in model.parameters()]).double()))
    (loss, gradient), (chained_loss, chained_gradient) = results
    assert len(chained(found)) < len(found)
    assert chained_loss == pytest.approx(loss, rel=1e-6)
    assert torch.cosine_similarity(gradient, chained_gradient, dim=0) > 0.99999
    assert (chained_gradient - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_the_loss_is_the_sum_over_examples_each_on_its_own(name):
    """Against the plainest way: one forward per example over prompt and answer, logits of every position."""
    prompt, template = PROMPTS[name], {"compact": COMPACT, "instruct": INSTRUCT}[name]
    model = small_llama(vocabulary_of(CATALOG, template))
    found = examples(random_block(5), "train", 5)
    packer = Packer((one_by_one(found),), prompt, 300)
    plan = packer.plan((0, 0))
    assert len(plan) > 1
    with torch.no_grad():
        packed = sum(label_loss(model, packer.batch(members), 0.8).item() for members in plan)
        total = 0.0
        for i in range(len(found)):
            asked_tokens = prompt.tokens(found.history(i))
            answer = np.append(prompt.answers[found.target_items[i]], prompt.end)
            tokens = torch.from_numpy(np.concatenate([asked_tokens, answer]))[None]
            logits = model(tokens).logits[0, len(asked_tokens) - 1 : -1] / 0.8
            total -= logits.log_softmax(-1).gather(1, torch.from_numpy(answer)[:, None]).sum().item()
    assert packed == pytest.approx(total, rel=1e-6)


def test_padding_changes_nothing():
    prompt = PROMPTS["compact"]
    model = small_llama(vocabulary_of(CATALOG))
    sequences = one_by_one(examples(random_block(6), "train", 5))
    with torch.no_grad():
        together = label_loss(model, whole(sequences, prompt), 1.0).item()
        alone = sum(label_loss(model, make_batch([(sequences, n)], prompt), 1.0).item() for n in range(len(sequences)))
    assert together == pytest.approx(alone, rel=1e-6)


budgets = st.integers(1, 400)


@settings(max_examples=80, deadline=None)
@given(st.lists(populations, min_size=1, max_size=3), budgets, names, st.none() | st.tuples(st.integers(0, 99)))
def test_a_plan_holds_every_sequence_once_within_the_budget(blocks, budget, name, seed):
    prompt = PROMPTS[name]
    layout = chained if prompt.chains else one_by_one
    sources = tuple(layout(examples(block_of(users), "train", 5)) for users in blocks)
    packer = Packer(sources, prompt, budget)
    plan = packer.plan(seed)
    everything = [(source, row) for source, sequences in enumerate(sources) for row in range(len(sequences))]
    assert sorted(member for members in plan for member in members) == everything
    for members in plan:
        batch = packer.batch(members)
        assert batch.tokens.size <= budget or len(members) == 1
        assert packer.label_count(members) == len(batch.labels) == len(batch.at)
        assert batch.tokens.shape[1] == max(sources[source].lengths(prompt)[row] for source, row in members)
    assert 0 < packer.fill <= 1


@settings(max_examples=40, deadline=None)
@given(populations, budgets, st.integers(0, 99), st.integers(0, 99))
def test_a_plan_follows_from_the_seed(users, budget, seed, epoch):
    sources = (one_by_one(examples(block_of(users), "train", 5)),)
    prompt = PROMPTS["compact"]
    assert Packer(sources, prompt, budget).plan((seed, epoch)) == Packer(sources, prompt, budget).plan((seed, epoch))
    assert Packer(sources, prompt, budget).plan(None) == Packer(sources, prompt, budget).plan(None)


def test_epochs_differ_in_order_and_in_mixture():
    packer = Packer((one_by_one(examples(random_block(60), "train", 5)),), PROMPTS["compact"], 100)
    first, second, other = packer.plan((3, 0)), packer.plan((3, 1)), packer.plan((4, 0))
    assert first != second != other != first
    assert {frozenset(members) for members in first} != {frozenset(members) for members in second}


def test_long_and_short_batches_come_in_any_order():
    packer = Packer((one_by_one(examples(random_block(60), "train", 5)),), PROMPTS["compact"], 100)
    widths = [packer.batch(members).tokens.shape[1] for members in packer.plan((3, 0))]
    assert len(widths) > 20
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.5


def test_without_a_seed_batches_go_by_length():
    packer = Packer((one_by_one(examples(random_block(30), "train", 5)),), PROMPTS["compact"], 100)
    lengths = packer.sources[0].lengths(packer.prompt)
    order = [int(lengths[row]) for members in packer.plan(None) for _, row in members]
    assert order == sorted(order)


def test_little_is_padding_where_pools_are_large():
    packer = Packer((one_by_one(examples(random_block(400), "train", 5)),), PROMPTS["compact"], 200)
    plan = packer.plan((0, 0))
    padded = sum(packer.batch(members).tokens.size for members in plan)
    assert packer.sources[0].lengths(packer.prompt).sum() > 0.85 * padded
    assert packer.fill > 0.9
