import itertools
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from decoding.naive import (
    CATALOG,
    CONSTRAINTS,
    CPU,
    VOCABULARY,
    continuations,
    naive,
    prompts_of,
    random_prompts,
    search,
    tokens_read,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrained import KINDS
from transformers import AutoModelForCausalLM
from worlds import catalog_of, random_catalog, small_llama, vocabulary_of

from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.decoding import beam
from peso_cli.decoding.beam import BeamSearch
from peso_cli.decoding.constraints import PositionalConstraint, TrieConstraint


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "decode.json").read_text())


@pytest.fixture(scope="module")
def golden_searches(shared, golden):
    """The model, codes and settings of the golden numbers under each constraint."""
    first = np.array([24, 32, 40, 48])
    catalog = catalog_of(np.array(list(golden["item_token_ids"].values())) - first)
    special = golden["special_ids"]
    vocabulary = Vocabulary(56, special["bos"], special["eos"], special["pad"], first, (8,) * 4, lambda text: [])
    model = AutoModelForCausalLM.from_pretrained(shared / "golden" / "tiny_llama")
    beams = golden["generate"]["num_beams"]
    return catalog, {name: BeamSearch(model, vocabulary, c(catalog, CPU), beams) for name, c in CONSTRAINTS.items()}


@pytest.fixture(scope="module")
def llama():
    return small_llama(VOCABULARY)


@pytest.mark.parametrize("name", sorted(CONSTRAINTS))
@pytest.mark.parametrize("batch", [1, 6, 30])
def test_sequences_scores_and_items_are_the_golden_ones(golden, golden_searches, name, batch):
    catalog, searches = golden_searches
    search = searches[name]
    prompts = [np.array(prompt["input_ids"]) for prompt in golden["prompts"]]
    for start in range(0, len(prompts), batch):
        found = search.run(prompts[start : start + batch])
        rows = search.constraint.sid_rows(found.nodes)
        for row, expected in enumerate(golden["results"][name][start : start + batch]):
            sequences = np.array(expected["sequences"])
            assert (found.codes[row].numpy() + search.vocabulary.first_code == sequences[:, :-1]).all()
            assert np.abs(found.scores[row].numpy() - expected["scores"]).max() <= 1e-5
            items = [np.flatnonzero(catalog.sid_of == sid) if sid >= 0 else [] for sid in rows[row]]
            assert [[str(item) for item in group] for group in items] == expected["items"]


@pytest.mark.parametrize("normalise", ["vocabulary", "level"])
@pytest.mark.parametrize("constraint", sorted(CONSTRAINTS))
@pytest.mark.parametrize("beams", [1, 4, 10])
def test_it_finds_what_a_naive_search_finds(llama, constraint, beams, normalise):
    prompts = random_prompts(4, seed=beams)
    found = search(llama, beams, constraint, normalise=normalise).run(prompts)
    for row, prompt in enumerate(prompts):
        expected = naive(llama, prompt, beams, constraint, normalise)
        assert found.codes[row].tolist() == [list(codes) for codes, _ in expected]
        assert found.scores[row].tolist() == pytest.approx([score for _, score in expected], abs=1e-5)


def allowed(begin, _, tokens):
    """What `generate` may go on with after a prompt of `begin` tokens."""
    level = len(tokens) - begin
    if level == CATALOG.levels:
        return [VOCABULARY.end]
    codes = tokens[begin:] - torch.from_numpy(VOCABULARY.first_code)[:level]
    return [int(VOCABULARY.first_code[level]) + code for code in continuations("trie", level, tuple(codes.tolist()))]


@pytest.mark.parametrize("model_seed", [1, 2])
def test_it_finds_what_generate_finds(model_seed):
    model, prompts = small_llama(VOCABULARY, model_seed), random_prompts(3, seed=model_seed)
    found = search(model, 10).run(prompts)
    for row, prompt in enumerate(prompts):
        tokens = torch.from_numpy(prompt)[None]
        output = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            num_beams=10,
            num_return_sequences=10,
            max_new_tokens=CATALOG.levels + 1,
            do_sample=False,
            early_stopping=True,
            output_scores=True,
            return_dict_in_generate=True,
            prefix_allowed_tokens_fn=partial(allowed, len(prompt)),
        )
        codes = output.sequences[:, len(prompt) : -1] - torch.from_numpy(VOCABULARY.first_code)
        assert found.codes[row].tolist() == codes.tolist()
        assert (output.sequences[:, -1] == VOCABULARY.end).all()
        torch.testing.assert_close(found.scores[row], output.sequences_scores, rtol=0, atol=1e-5)


def test_with_room_for_all_it_ranks_every_semantic_id_by_its_own_score(llama):
    (prompt,) = random_prompts(1, seed=5)
    found = search(llama, 100).run([prompt])
    tokens = torch.from_numpy(VOCABULARY.sid_tokens(CATALOG.sids))
    rows = torch.cat([torch.from_numpy(prompt).expand(len(tokens), -1), tokens], dim=1)
    with torch.no_grad():
        log_p = llama(rows).logits.log_softmax(-1)[:, len(prompt) - 1 :]
    answers = torch.cat([tokens, torch.full((len(tokens), 1), VOCABULARY.end)], dim=1)
    scores = log_p.gather(2, answers[..., None]).squeeze(2).mean(1)
    expected = scores.sort(descending=True)
    assert found.nodes[0].tolist() == expected.indices.tolist()
    torch.testing.assert_close(found.scores[0], expected.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_prompt_depends_on_those_beside_it(attention):
    model, prompts = small_llama(VOCABULARY, 3, attention), random_prompts(12, longest=20, seed=3)
    wide = search(model, 10)
    together = wide.run(prompts)
    for start, end in itertools.pairwise([0, 1, 3, 6, 12]):
        apart = wide.run(prompts[start:end])
        assert torch.equal(apart.codes, together.codes[start:end])
        torch.testing.assert_close(apart.scores, together.scores[start:end], rtol=0, atol=1e-5)


def test_both_kinds_of_attention_find_the_same():
    prompts = random_prompts(4, seed=4)
    found = [search(small_llama(VOCABULARY, 3, attention), 10).run(prompts) for attention in ("sdpa", "eager")]
    assert torch.equal(found[0].codes, found[1].codes)
    torch.testing.assert_close(found[0].scores, found[1].scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pad", [0, 2, 7])
def test_what_fills_up_rows_is_never_looked_at(llama, pad):
    prompts = random_prompts(5, longest=15, seed=6)
    usual = search(llama, 10).run(prompts)
    other = BeamSearch(llama, replace(VOCABULARY, pad=pad), TrieConstraint(CATALOG, CPU), 10).run(prompts)
    assert torch.equal(usual.codes, other.codes)
    assert torch.equal(usual.scores, other.scores)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40),
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from(["vocabulary", "level"]),
)
def test_every_prompt_gets_its_share_of_distinct_real_semantic_ids(llama, codes, beams, count, normalise):
    catalog = catalog_of(codes)
    found = search(llama, beams, catalog=catalog, normalise=normalise).run(random_prompts(count, seed=beams))
    expected = min(beams, len(catalog.sids))
    assert found.codes.shape == (count, expected, 3)
    for row in range(count):
        rows = TrieConstraint(catalog, CPU).sid_rows(found.nodes[row])
        assert len(set(rows.tolist())) == expected
        assert catalog.sids[rows].tolist() == found.codes[row].tolist()
        assert (found.scores[row].diff() <= 0).all()
        assert found.scores[row].isfinite().all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30))
def test_positional_nodes_name_just_the_real_semantic_ids(codes):
    catalog = catalog_of(codes)
    constraint, node = PositionalConstraint(catalog, CPU), {(): 0}
    for level, size in enumerate(catalog.level_sizes):
        longer = {}
        for before, number in node.items():
            children = constraint.children(level, torch.tensor(number))
            assert (children.codes.tolist(), children.exists.all()) == (list(range(size)), True)
            longer |= {(*before, code): int(child) for code, child in enumerate(children.nodes)}
        node = longer
    rows = dict(zip(node, constraint.sid_rows(torch.tensor(list(node.values()))), strict=True))
    assert {codes: row for codes, row in rows.items() if row >= 0} == {
        tuple(sid): row for row, sid in enumerate(catalog.sids.tolist())
    }


@pytest.mark.parametrize("normalise", ["vocabulary", "level"])
def test_equal_scores_go_to_the_lower_codes(normalise):
    model = small_llama(VOCABULARY)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    prompts = random_prompts(3)
    found = search(model, 10, normalise=normalise).run(prompts)
    assert found.nodes.tolist() == [list(range(10))] * 3
    assert found.codes[0].tolist() == CATALOG.sids[:10].tolist()
    by_position = search(model, 10, "positional", normalise=normalise).run(prompts)
    assert by_position.codes[0].tolist() == [[0, code // 5, code % 5] for code in range(10)]


def with_given_logits(logits, dtype=torch.float32):
    """A model whose every next-token logits are the given ones, whatever it reads."""
    model = small_llama(VOCABULARY).to(dtype)
    head = torch.nn.Linear(32, VOCABULARY.size, dtype=dtype)
    torch.nn.init.zeros_(head.weight)
    head.bias.data.copy_(logits)
    model.set_output_embeddings(head)
    return model


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=12, max_size=12), st.integers(1, 30), st.sampled_from(sorted(CONSTRAINTS)))
def test_ties_reached_by_different_ways_go_to_the_lower_codes(worth, beams, constraint):
    """The word at 1000 takes all the probability, so that scores are whole numbers and ties exact."""
    begins = VOCABULARY.first_code - VOCABULARY.first_code[0]
    logits = torch.zeros(VOCABULARY.size)
    logits[VOCABULARY.pad] = 1000
    logits[VOCABULARY.sid_ids] = torch.tensor(worth, dtype=torch.float32)
    alive = [((), 0)]
    for level in range(CATALOG.levels):
        grown = [
            ((*codes, code), score + worth[begins[level] + code])
            for codes, score in alive
            for code in continuations(constraint, level, codes)
        ]
        alive = sorted(grown, key=lambda pair: (-pair[1], pair[0]))[:beams]
    found = search(with_given_logits(logits), beams, constraint).run(random_prompts(1))
    assert found.codes[0].tolist() == [list(codes) for codes, _ in alive]
    assert found.scores[0].tolist() == [(score - 4000) / 4 for _, score in alive]


@pytest.mark.parametrize("normalise", ["vocabulary", "level"])
def test_probabilities_of_a_half_precision_model_are_taken_in_single_precision(normalise):
    torch.manual_seed(0)
    logits = torch.randn(VOCABULARY.size).bfloat16()
    found = search(with_given_logits(logits, torch.bfloat16), 100, normalise=normalise).run(random_prompts(1))
    log_p, first = logits.float().log_softmax(-1), VOCABULARY.first_code
    if normalise == "level":
        parts = [logits.float()[f : f + n].log_softmax(-1) for f, n in zip(first, CATALOG.level_sizes, strict=True)]
    else:
        parts = [log_p[f:] for f in first]
    end = 0.0 if normalise == "level" else log_p[VOCABULARY.end]
    expected = (sum(part[found.codes[0, :, level]] for level, part in enumerate(parts)) + end) / 4
    assert found.scores.dtype == torch.float32
    torch.testing.assert_close(found.scores[0], expected, rtol=0, atol=2e-6)


def test_dropout_is_off_in_a_search():
    model = small_llama(VOCABULARY)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    prompts = random_prompts(2)
    expected = search(model.eval(), 10).run(prompts)
    assert torch.equal(search(model.train(), 10).run(prompts).scores, expected.scores)


# Of many items


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30))
def test_the_trie_lets_on_just_what_some_item_continues_with(codes):
    catalog = catalog_of(codes)
    constraint, ways = TrieConstraint(catalog, CPU), [()]
    for level in range(3):
        children = constraint.children(level, torch.arange(len(ways)))
        assert children.codes.dtype == torch.int64
        longer = []
        for node, way in enumerate(ways):
            exists = children.exists[node]
            expected = sorted({sid[level] for sid in catalog.sids.tolist() if tuple(sid[:level]) == way})
            assert children.codes[node][exists].tolist() == expected
            assert children.nodes[node][exists].tolist() == [*range(len(longer), len(longer) + len(expected))]
            longer += [(*way, code) for code in expected]
        ways = longer
    assert [list(way) for way in ways] == catalog.sids.tolist()
    assert constraint.sid_rows(torch.arange(len(ways))).dtype == np.int64


def test_what_is_found_among_many_items_is_the_best_of_them():
    sizes = (16, 16, 16)
    catalog, some = random_catalog(3000, sizes), np.random.default_rng(0)
    vocabulary = vocabulary_of(catalog)
    model, prompt = small_llama(vocabulary, 1), some.integers(3, vocabulary.size, 6)
    found = search(model, 3000, catalog=catalog, vocabulary=vocabulary).run([prompt])
    assert sorted(found.nodes[0].tolist()) == list(range(3000))
    rows = some.integers(0, 3000, 20)
    for row, score in zip(found.nodes[0][rows].tolist(), found.scores[0][rows].tolist(), strict=True):
        tokens = [*prompt, *vocabulary.sid_tokens(catalog.sids[row]), vocabulary.end]
        with torch.no_grad():
            log_p = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        assert score == pytest.approx(np.mean([float(log_p[at - 1, tokens[at]]) for at in range(6, 10)]), abs=1e-5)


# A prefix that all prompts share


def model_of(kind, layers):
    """A random model whose four query heads share two key-value heads."""
    make_config, make_model = KINDS[kind]
    torch.manual_seed(layers)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = make_config(
        vocab_size=VOCABULARY.size,
        hidden_size=32,
        num_hidden_layers=layers,
        intermediate_size=48,
        initializer_range=0.3,
        **heads,
    )
    return make_model(config).eval()


@pytest.mark.parametrize("normalise", ["vocabulary", "level"])
@pytest.mark.parametrize("before", [0, 1, 7])
@pytest.mark.parametrize(("kind", "layers"), [("llama", 1), ("llama", 3), ("qwen3", 1), ("qwen3", 3)])
def test_a_shared_prefix_read_once_changes_nothing(kind, layers, before, normalise):
    model, (prefix,) = model_of(kind, layers), prompts_of([before], seed=9)
    prompts = prompts_of([4, 1, 9, 1, 4, 2, 1])
    once = search(model, 6, normalise=normalise, prefix=prefix)
    plain = search(model, 6, normalise=normalise).run([np.concatenate([prefix, prompt]) for prompt in prompts])
    for chosen in ([*range(7)], [5], [1, 3, 6]):  # all, one alone, and those of a single token
        found = once.run([prompts[i] for i in chosen])
        assert torch.equal(found.codes, plain.codes[chosen])
        torch.testing.assert_close(found.scores, plain.scores[chosen], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_behind_a_prefix_it_finds_what_a_naive_search_finds(kind):
    model, (prefix, *prompts) = model_of(kind, 2), prompts_of([5, 1, 3, 1])
    found = search(model, 4, prefix=prefix).run(prompts)
    for row, prompt in enumerate(prompts):
        expected = naive(model, [*prefix, *prompt], 4)
        assert found.codes[row].tolist() == [list(codes) for codes, _ in expected]
        assert found.scores[row].tolist() == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.parametrize("normalise", ["vocabulary", "level"])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_nothing_is_read_twice(normalise, kind, monkeypatch):
    model, seen = model_of(kind, 2), tokens_read(monkeypatch)
    prefix, *prompts = prompts_of([6, 1, 4, 4])
    wide = search(model, 5, normalise=normalise, prefix=prefix)
    assert seen == [6]
    wide.run(prompts)
    levels = [3, 5, 5] if normalise == "vocabulary" else [3, 5]  # a level's probabilities need no end token
    assert seen == [6, 9, *(3 * width for width in levels)]


@pytest.mark.parametrize(("most", "passes"), [(1, [1, 2, 4, 4, 4]), (6, [3, 4, 4, 4]), (8, [7, 8]), (15, [15])])
def test_prompts_are_read_in_portions_of_what_the_device_likes(monkeypatch, most, passes):
    model, seen = model_of("llama", 2), tokens_read(monkeypatch)
    prefix, *prompts = prompts_of([3, 4, 1, 4, 2, 4])
    expected = search(model, 5, prefix=prefix).run(prompts)
    monkeypatch.setattr(beam, "_TOKENS_AT_ONCE", {"cpu": most})
    seen.clear()
    found = search(model, 5, prefix=prefix).run(prompts)
    assert seen[1 : 1 + len(passes)] == passes
    assert torch.equal(found.codes, expected.codes)
    torch.testing.assert_close(found.scores, expected.scores)


# Memory


def buffers_of(monkeypatch, beams, prefix, prompts):
    """Bytes of all keys and values that a search of some width keeps for its prompts."""
    made, make = [], beam.Prompts
    monkeypatch.setattr(beam, "Prompts", lambda *arguments: made.append(make(*arguments)) or made[-1])
    search(model_of("llama", 2), beams, prefix=prefix).run(prompts)
    (states,) = made
    sides = [side for layer in range(2) for run in range(len(states.runs)) for side in states.seen(layer, run, 0)]
    return sum(side.untyped_storage().nbytes() for side in sides)


def test_a_wider_beam_takes_room_for_its_codes_and_no_more_copies_of_prompts(monkeypatch):
    prefix, *prompts = prompts_of([10, 40, 40, 7])
    token = 2 * 2 * 2 * 8 * 4  # two layers, keys and values, two heads of width 8 in single precision
    for beams in (1, 5, 20):
        held = buffers_of(monkeypatch, beams, prefix, prompts)
        assert held == token * (3 * 10 + 40 + 40 + 7 + 3 * beams * CATALOG.levels)
        monkeypatch.undo()


def test_how_much_it_takes_at_once(llama, monkeypatch):
    narrow, wide = search(llama, 4), search(llama, 10**6)
    assert (narrow.room, wide.room) == (12, 3 * 10**6)
    assert narrow.prompts_at_once > 2 * search(llama, 10).prompts_at_once > 2
    assert wide.prompts_at_once == 1
    monkeypatch.setattr(beam, "free_memory", lambda device: 256 * 1000)  # a token takes 2 * 2 * 16 * 4 bytes
    assert narrow.tokens_in_memory() == wide.tokens_in_memory() == 500
