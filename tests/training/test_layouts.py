from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from populations import CATALOG, PROMPTS, TEMPLATES, names, populations, random_block
from pretrained import CATALOG as SMALL_CATALOG
from pretrained import config_of, save_pretrained
from worlds import COMPACT, INSTRUCT, block_of, small_llama, vocabulary_of

from peso_cli.backbones.build import build_backbone
from peso_cli.backbones.loading import lora_arguments
from peso_cli.config.schema import ConfigBackbone, Lora
from peso_cli.data.examples import examples
from peso_cli.methods.adapters.evolving import Evolving
from peso_cli.methods.adapters.full_weights import FullWeights
from peso_cli.methods.parts import AdapterStart
from peso_cli.training.checkpoints import trainable
from peso_cli.training.layouts import Packed, Padded
from peso_cli.training.sequences import one_by_one, shared
from peso_cli.training.steps import label_loss
from peso_cli.training.trees import ByBlocks, Grove

LEVELS = 3
splits = st.sampled_from(["train", "valid", "test"])


def members(*sources):
    """All sequences of several blocks."""
    return [(sequences, row) for sequences in sources for row in range(len(sequences))]


def sights(batch):
    """For every place of a batch's rows, the places that it sees, itself included."""
    rows, length = batch.tokens.shape
    if batch.grove is None:
        return [[*range(row * length, row * length + place + 1)] for row in range(rows) for place in range(length)]
    head = batch.grove.runs[0][0].head
    found, before = [[*range(place + 1)] for place in range(head)], head
    for tree in (tree for tree, count in batch.grove.runs for _ in range(count)):
        for row in tree.sees:
            found.append([int(p) if p < head else before + int(p) - head for p in np.flatnonzero(row)])
        before += len(tree)
    assert rows == 1
    assert len(found) == length
    return found


def asked(batch):
    """What a batch asks, counted: (all tokens seen before an answer, the answer with its end token).

    Checks along the way that tokens seen lie one behind the other and see each other so, and that each code of an
    answer is seen before the next one is asked.
    """
    rows, length = batch.tokens.shape
    tokens, sees, found = batch.tokens.reshape(-1), sights(batch), Counter()
    positions = np.tile(np.arange(length), rows) if batch.positions is None else batch.positions.reshape(-1)
    for at, labels in zip(batch.at.reshape(-1, LEVELS + 1), batch.labels.reshape(-1, LEVELS + 1), strict=True):
        seen = sees[at[-1]]
        assert positions[seen].tolist() == list(range(len(seen)))
        assert all(sees[place] == seen[: order + 1] for order, place in enumerate(seen))
        assert at.tolist() == seen[-LEVELS - 1 :]
        assert tokens[at[1:]].tolist() == labels[:LEVELS].tolist()
        found[tuple(tokens[seen[:-LEVELS]].tolist()), tuple(labels.tolist())] += 1
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


LAYOUTS = {
    "padded": (Padded, one_by_one),
    "packed": (Packed, shared),
    "packed one by one": (Packed, one_by_one),
}
EACH = pytest.mark.parametrize("kind", sorted(LAYOUTS))


@EACH
@settings(max_examples=60, deadline=None)
@given(st.lists(populations, min_size=1, max_size=2), st.integers(1, 7), splits, names)
def test_a_batch_asks_just_the_examples(kind, blocks, window, split, name):
    (layout, grouped), prompt = LAYOUTS[kind], PROMPTS[name]
    every = [examples(block_of(users), split, window) for users in blocks]
    if sum(map(len, every)):
        batch = layout(prompt).batch(members(*map(grouped, every)))
        assert asked(batch) == sum((wanted(found, prompt) for found in every), Counter())


@EACH
@settings(max_examples=60, deadline=None)
@given(populations, names)
def test_a_layout_knows_how_many_tokens_a_batch_will_hold(kind, users, name):
    (make, grouped), prompt = LAYOUTS[kind], PROMPTS[name]
    layout, sequences = make(prompt), grouped(examples(block_of(users), "train", 5))
    lengths = layout.lengths(sequences)
    for row in range(len(sequences)):
        assert layout.batch([(sequences, row)]).tokens.size == layout.size(lengths[[row]])
    if len(sequences):
        assert layout.batch(members(sequences)).tokens.size == layout.size(lengths)


@settings(max_examples=30, deadline=None)
@given(populations, names)
def test_a_packed_row_holds_no_padding_and_the_head_just_once(users, name):
    prompt, sequences = PROMPTS[name], shared(examples(block_of(users), "train", 5))
    if len(sequences):
        batch = Packed(prompt).batch(members(sequences))
        met = {place for at in batch.at.reshape(-1, LEVELS + 1) for place in sights(batch)[at[-1]]}
        assert met == set(range(batch.tokens.size))
        assert batch.tokens.shape[0] == 1
        assert (batch.positions[0, len(prompt.head) :] >= len(prompt.head)).all()


def test_a_user_of_a_chaining_prompt_is_one_plain_sequence():
    sequences = shared(examples(block_of({"a": ([1, 2], [3, 4, 5, 6]), "b": ([], [7, 8, 9, 1])}), "train", 5))
    prompt = PROMPTS["compact"]
    batch, answers = Packed(prompt).batch(members(sequences)), prompt.answers
    assert batch.tokens.tolist() == [[1, *answers[[7, 8]].reshape(-1), *answers[[1, 2, 3, 4]].reshape(-1)]]
    assert batch.positions.tolist() == [[0, *range(1, 7), *range(1, 13)]]
    assert batch.labels.reshape(-1, 4)[:, 3].tolist() == [prompt.end] * 4
    assert batch.labels.reshape(-1, 4)[:, :3].tolist() == answers[[7, 8, 3, 4]].tolist()
    assert batch.at.reshape(-1, 4).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [12, 13, 14, 15], [15, 16, 17, 18]]


def test_a_shorter_row_is_padded_on_the_right():
    sequences = one_by_one(examples(block_of({"a": ([1, 2], [3, 4, 5])}), "train", 5))
    lone = one_by_one(examples(block_of({"b": ([], [7, 8, 9])}), "train", 5))
    prompt = PROMPTS["compact"]
    batch, answers = Padded(prompt).batch([*members(sequences), *members(lone)]), prompt.answers
    assert batch.tokens.tolist() == [
        [1, *answers[[1, 2, 3]].reshape(-1)],
        [1, *answers[7], *[prompt.pad] * 6],
    ]
    assert (batch.positions, batch.grove) == (None, None)


# The loss against the plainest way


def plainest_loss(model, found, prompt, temperature):
    """One forward per example over prompt and answer, logits of every position."""
    total = 0.0
    for i in range(len(found)):
        history = prompt.tokens(found.history(i))
        answer = np.append(prompt.answers[found.target_items[i]], prompt.end)
        tokens = torch.from_numpy(np.concatenate([history, answer]))[None]
        logits = model(tokens).logits[0, len(history) - 1 : -1] / temperature
        total -= logits.log_softmax(-1).gather(1, torch.from_numpy(answer)[:, None]).sum().item()
    return total


@EACH
@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_the_loss_is_the_sum_over_examples_each_on_its_own(kind, name):
    (layout, grouped), prompt = LAYOUTS[kind], PROMPTS[name]
    model = small_llama(vocabulary_of(CATALOG, TEMPLATES[name]))
    found = examples(random_block(7), "train", 5)
    with torch.no_grad():
        loss = label_loss(model, layout(prompt).batch(members(grouped(found))), 0.8).item()
        assert loss == pytest.approx(plainest_loss(model, found, prompt, 0.8), rel=1e-6)


@EACH
def test_company_changes_nothing(kind):
    (make, grouped), prompt = LAYOUTS[kind], PROMPTS["instruct"]
    model, layout = small_llama(vocabulary_of(CATALOG, INSTRUCT)), make(prompt)
    every = members(grouped(examples(random_block(6), "train", 5)))
    with torch.no_grad():
        together = label_loss(model, layout.batch(every), 1.0).item()
        alone = sum(label_loss(model, layout.batch([member]), 1.0).item() for member in every)
    assert together == pytest.approx(alone, rel=1e-6)


# Packed against padded, for all that can train


OWN = ConfigBackbone(
    "config", "own", 32, 2, 4, 2, 48, 0.0, False, Lora(2, 4.0, 0.0, ("q_proj", "lm_head", "embed_tokens"))
)
CASES = [
    *[(what, tied, name) for what in ("weights", "lora") for tied in (False, True) for name in sorted(TEMPLATES)],
    *[(f"llama {rows}", tied, "instruct") for rows in ("new_rows", "full") for tied in (False, True)],
    ("qwen3 new_rows", True, "listed"),
    ("qwen3 full", False, "compact"),
]
"""What trains (all weights or a LoRA of a backbone from a config; a LoRA and vocabulary rows of a pretrained one),
whether its embedding and head are tied, and the prompt."""


def begun(what, tied, name, folder):
    """A model in training whose trained numbers are all away from zero, and its prompt."""
    if what in ("weights", "lora"):
        config, catalog = replace(OWN, tie_embeddings=tied), CATALOG
    else:
        kind, rows = what.split()
        config, catalog = config_of(save_pretrained(folder, kind, tied), trained_rows=rows), SMALL_CATALOG
    backbone = build_backbone(config, TEMPLATES[name], catalog, 1)
    lora = lora_arguments(config, backbone.model, backbone.vocabulary)
    torch.manual_seed(7)
    model = (FullWeights() if what == "weights" else Evolving()).begin(AdapterStart(backbone.model, lora)).train()
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    return model, backbone.prompt


def loss_of_all_logits(model, batch, temperature):
    """The loss of a padded batch by a forward pass of the whole model."""
    logits = model(input_ids=torch.from_numpy(batch.tokens)).logits.flatten(0, 1)[torch.from_numpy(batch.at)]
    return torch.nn.functional.cross_entropy(logits / temperature, torch.from_numpy(batch.labels), reduction="sum")


def loss_and_gradients(model, batch, make=label_loss):
    """The loss at a temperature, and the gradient of everything that trains."""
    model.zero_grad(set_to_none=True)
    loss = make(model, batch, 0.8)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in trainable(model).items()}


def equal(one, other):
    """Check that losses and gradients agree, the gradients parameter by parameter."""
    (loss, gradients), (other_loss, other_gradients) = one, other
    assert other_loss == pytest.approx(loss, rel=1e-6)
    assert other_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        mine, its = gradient.double().flatten(), other_gradients[name].double().flatten()
        assert mine.norm() > 0, name
        assert torch.cosine_similarity(mine, its, dim=0) > 0.99999, name
        assert (mine - its).norm() <= 1e-4 * mine.norm(), name


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(("what", "tied", "name"), CASES)
def test_packed_and_padded_have_the_loss_and_gradients_of_the_whole_model(tmp_path, what, tied, name):
    model, prompt = begun(what, tied, name, tmp_path)
    blocks = [random_block(6, seed=1), random_block(3, seed=2, stage=3)]
    assert all((np.diff(block.starts) > COMPACT.window + 2).any() for block in blocks)
    every = [examples(block, "train", COMPACT.window) for block in blocks]
    padded = Padded(prompt).batch(members(*map(one_by_one, every)))
    packed = Packed(prompt).batch(members(*map(shared, every)))
    assert packed.tokens.size < padded.tokens.size
    expected = loss_and_gradients(model, padded, loss_of_all_logits)
    equal(expected, loss_and_gradients(model, padded))
    equal(expected, loss_and_gradients(model, packed))


@settings(max_examples=25, deadline=None)
@given(st.lists(populations, min_size=1, max_size=2), st.integers(1, 7), names)
def test_packed_and_padded_agree_whoever_the_users_are(blocks, window, name):
    every = [examples(block_of(users), "train", window) for users in blocks]
    if sum(map(len, every)):
        model, prompt = small_llama(vocabulary_of(CATALOG, TEMPLATES[name])), PROMPTS[name]
        padded = Padded(prompt).batch(members(*map(one_by_one, every)))
        packed = Packed(prompt).batch(members(*map(shared, every)))
        equal(loss_and_gradients(model, padded), loss_and_gradients(model, packed))


# Weights


@EACH
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(populations, st.sampled_from([0.5, 1.0, 3.0])), min_size=1, max_size=3), names)
def test_every_label_has_the_weight_of_the_block_that_it_is_from(kind, blocks, name):
    (layout, grouped), prompt = LAYOUTS[kind], PROMPTS[name]
    every = [(examples(block_of(users), "train", 5), weight) for users, weight in blocks]
    if sum(len(found) for found, _ in every):
        batch = layout(prompt).batch(members(*(replace(grouped(found), weight=weight) for found, weight in every)))
        weights = np.ones(len(batch.labels)) if batch.weights is None else batch.weights
        found = Counter(zip(batch.labels.tolist(), weights.tolist(), strict=True))
        expected = Counter()
        for one, weight in every:
            for item in one.target_items:
                expected.update((token, weight) for token in (*prompt.answers[item].tolist(), prompt.end))
        assert found == expected
        assert (batch.weights is None) == all(weight == 1 for one, weight in every if len(one))
        assert batch.mass == weights.sum()


WEIGHTS = (0.25, 1.0, 3.0)
TRAINED = pytest.mark.parametrize(("what", "tied"), [("weights", True), ("lora", False), ("llama new_rows", True)])


def sources_of(kind):
    """The training examples of three blocks as sequences."""
    return [LAYOUTS[kind][1](examples(random_block(4, seed=seed, stage=seed), "train", 5)) for seed in (1, 2, 3)]


@EACH
@TRAINED
def test_weights_multiply_losses_and_gradients(tmp_path, kind, what, tied):
    model, prompt = begun(what, tied, "compact", tmp_path)
    layout, sources = LAYOUTS[kind][0](prompt), sources_of(kind)
    apart = [layout.batch(members(source)) for source in sources]
    together = layout.batch(members(*(replace(s, weight=w) for s, w in zip(sources, WEIGHTS, strict=True))))

    def by_hand(model, batches, temperature):
        return sum(w * label_loss(model, b, temperature) for w, b in zip(WEIGHTS, batches, strict=True))

    equal(loss_and_gradients(model, apart, by_hand), loss_and_gradients(model, together))


@EACH
def test_twice_the_weight_is_the_same_as_twice_the_examples(tmp_path, kind):
    model, prompt = begun("lora", True, "instruct", tmp_path)
    layout, (one, other, _) = LAYOUTS[kind][0](prompt), sources_of(kind)
    twice = layout.batch(members(one, other, one))
    heavy = layout.batch(members(replace(one, weight=2.0), other))
    assert heavy.mass == twice.mass
    equal(loss_and_gradients(model, twice), loss_and_gradients(model, heavy))


@EACH
def test_weight_one_changes_no_bit(tmp_path, kind):
    model, prompt = begun("lora", True, "instruct", tmp_path)
    plain, sources = LAYOUTS[kind][0](prompt), sources_of(kind)
    batch = plain.batch(members(*sources))
    assert batch.weights is None
    ones = replace(batch, weights=np.ones(len(batch.labels), np.float32))
    (loss, gradients), (same_loss, same) = (loss_and_gradients(model, b) for b in (batch, ones))
    assert same_loss == pytest.approx(loss, rel=1e-6)
    assert all(torch.equal(gradient, same[name]) for name, gradient in gradients.items())


@pytest.mark.parametrize("name", ["compact", "instruct"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_by_blocks_the_loss_is_the_same(monkeypatch, name):
    prompt, model = PROMPTS[name], small_llama(vocabulary_of(CATALOG, TEMPLATES[name]))
    batch = Packed(prompt).batch(members(shared(examples(random_block(9), "train", 5))))
    with torch.no_grad():
        by_runs = label_loss(model, batch, 0.8).item()
        monkeypatch.setattr(Grove, "attend", lambda grove, device: ByBlocks(grove, device))
        assert label_loss(model, batch, 0.8).item() == pytest.approx(by_runs, rel=1e-6)


def test_a_lora_drops_out_in_packed_rows_too():
    vocabulary = vocabulary_of(CATALOG)
    torch.manual_seed(0)
    targets = {"target_modules": ["q_proj", "lm_head"], "lora_dropout": 0.5, "init_lora_weights": False}
    model = get_peft_model(small_llama(vocabulary), LoraConfig(r=2, **targets)).train()
    batch, losses = Packed(PROMPTS["compact"]).batch(members(shared(examples(random_block(5), "train", 5)))), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(label_loss(model, batch, 1.0).item())
    assert losses[0] == losses[1] != losses[2]
