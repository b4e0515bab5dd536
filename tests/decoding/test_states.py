import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrained import KINDS
from torch.nn.functional import scaled_dot_product_attention
from worlds import random_catalog, small_llama, vocabulary_of

from peso_cli.decoding.states import Part, Prefix, Prompts, Run, bytes_per_token, free_memory

HEADS, SHARED, WIDTH, LAYERS = 2, 2, 4, 3
"""Key-value heads, query heads to each of them, width of a head, layers."""

runs_of = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=4)


def rows(tokens, generator):
    """Queries, keys and values of tokens in one row."""
    heads = (HEADS * SHARED, HEADS, HEADS)
    return tuple(torch.randn(1, n, tokens, WIDTH, generator=generator) for n in heads)


def plainly(query, key, value, sees):
    """(queries, heads, width) attention of one sequence, key-value heads repeated, under a boolean mask."""
    key, value = (side.repeat_interleave(SHARED, dim=1) for side in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=sees, scale=0.5)[0].transpose(0, 1)


def read_prefix(tokens, generator):
    """A prefix read layer by layer, and its rows."""
    prefix, read = Prefix(), [rows(tokens, generator) for _ in range(LAYERS)]
    out = [prefix(layer, *row, 0.5, 0.0) for layer, row in enumerate(read)]
    return prefix, read, out


def prompts_of(before, runs, room, seed=0):
    """Prompts behind a prefix, all read at once; the rows of both, and what reading gave."""
    generator = torch.Generator().manual_seed(seed)
    prefix, first, _ = read_prefix(before, generator) if before else (Prefix(), [], None)
    prompts = Prompts(prefix, [Run(*run) for run in runs], room)
    read = [rows(sum(count * length for count, length in runs), generator) for _ in range(LAYERS)]
    reading = prompts.reading([Part(run, 0, count) for run, (count, _) in enumerate(runs)])
    out = [reading(layer, *row, 0.5, 0.0) for layer, row in enumerate(read)]
    return prompts, first, read, out


def sequences(runs):
    """The places of each prompt's tokens in the row."""
    start = 0
    for count, length in runs:
        for _ in range(count):
            yield slice(start, start + length)
            start += length


def behind(first, layer, own):
    """Keys and values of the prefix and of one sequence, side by side."""
    whole = (first[layer][1:], own) if first else (own,)
    return tuple(torch.cat(parts, dim=2) for parts in zip(*whole, strict=True))


def test_a_prefix_is_read_as_any_text_and_kept():
    prefix, read, out = read_prefix(5, torch.Generator().manual_seed(1))
    assert (len(prefix), len(prefix.layers), len(Prefix())) == (5, LAYERS, 0)
    for layer, (query, key, value) in enumerate(read):
        assert torch.equal(prefix.layers[layer][0], key)
        assert torch.equal(prefix.layers[layer][1], value)
        expected = plainly(query, key, value, torch.ones(5, 5).tril().bool())
        torch.testing.assert_close(out[layer][0], expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), runs_of, st.integers(0, 1000))
def test_every_prompt_sees_the_prefix_and_its_own_past(before, runs, seed):
    _, first, read, out = prompts_of(before, runs, room=3, seed=seed)
    for layer, row in enumerate(read):
        for place in sequences(runs):
            query, *own = (side[:, :, place] for side in row)
            length = query.shape[2]
            sees = torch.ones(length, before + length).tril(before).bool()
            torch.testing.assert_close(out[layer][0, place], plainly(query, *behind(first, layer, own), sees))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), runs_of, st.integers(1, 4), st.integers(0, 1000))
def test_codes_see_their_prompt_and_just_the_slots_they_are_told_to(before, runs, width, seed):
    """Two levels of `width` beams; a beam of the second sees the slots that a random mask says."""
    prompts, first, read, _ = prompts_of(before, runs, room=2 * width, seed=seed)
    generator, count = torch.Generator().manual_seed(seed + 1), sum(count for count, _ in runs)
    behind_it = [[] for _ in range(LAYERS)]
    for level in range(2):
        itself = torch.eye(width).bool().expand(count, -1, -1)
        sees = torch.cat([torch.rand(count, width, level * width, generator=generator) < 0.5, itself], dim=2)
        codes = prompts.codes(level * width, sees)
        for layer in range(LAYERS):
            row = rows(count * width, generator)
            out = codes(layer, *row, 0.5, 0.0)
            behind_it[layer].append(row)
            for prompt, place in enumerate(sequences(runs)):
                beams = slice(prompt * width, (prompt + 1) * width)
                slots = (torch.cat([r[side][:, :, beams] for r in behind_it[layer]], dim=2) for side in (1, 2))
                own = [
                    torch.cat([read[layer][side][:, :, place], s], dim=2) for side, s in zip((1, 2), slots, strict=True)
                ]
                whole = behind(first, layer, own)
                everything = torch.ones(width, before + place.stop - place.start).bool()
                expected = plainly(row[0][:, :, beams], *whole, torch.cat([everything, sees[prompt]], dim=1))
                torch.testing.assert_close(out[0, beams], expected)


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize(
    "portions",
    [
        [[Part(0, 0, 2), Part(1, 0, 1)], [Part(2, 0, 3)]],
        [[Part(0, 0, 1)], [Part(0, 1, 1), Part(1, 0, 1), Part(2, 0, 1)], [Part(2, 1, 2)]],
    ],
)
def test_prompts_may_be_read_in_portions(before, portions):
    runs = [(2, 1), (1, 3), (3, 4)]
    whole, _, read, expected = prompts_of(before, runs, 2, seed=2)
    prefix = read_prefix(before, torch.Generator().manual_seed(2))[0] if before else Prefix()
    parts = Prompts(prefix, [Run(*run) for run in runs], 2)
    for layer, row in enumerate(read):
        found, start = [], 0
        for portion in portions:
            stop = start + sum(part.count * runs[part.run][1] for part in portion)
            found.append(parts.reading(portion)(layer, *(side[:, :, start:stop] for side in row), 0.5, 0.0))
            start = stop
        torch.testing.assert_close(torch.cat(found, dim=1), expected[layer])
        for run in range(3):
            for one, other in zip(parts.seen(layer, run, 0), whole.seen(layer, run, 0), strict=True):
                assert torch.equal(one, other)


def test_keys_and_values_lie_in_one_place_each_however_many_codes_have_been_read():
    runs, room, width = [(3, 2), (1, 6)], 8, 4
    prompts, *_ = prompts_of(5, runs, room)
    begins = [prompts.seen(layer, run, 0)[0].data_ptr() for layer in range(LAYERS) for run in range(2)]
    for level in range(2):
        sees = torch.ones(4, width, (level + 1) * width).bool()
        codes = prompts.codes(level * width, sees)
        for layer in range(LAYERS):
            codes(layer, *rows(4 * width, torch.Generator()), 0.5, 0.0)
    for layer in range(LAYERS):
        for run, (count, length) in enumerate(runs):
            for side in prompts.seen(layer, run, room):
                assert side.shape == (count, HEADS, prompts.length(run) + room, WIDTH)
                assert side.untyped_storage().nbytes() == 4 * count * HEADS * (5 + length + room) * WIDTH
    assert begins == [prompts.seen(layer, run, room)[0].data_ptr() for layer in range(LAYERS) for run in range(2)]


_FAULTS = """
import resource
import torch
from peso_cli.decoding.states import keep_freed_memory

keep_freed_memory()
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2 << 20) for _ in range(3)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Page faults of taking 24 MB, 6,144 pages, that have been taken and freed before."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library gives out memory here")
def test_memory_that_was_freed_is_taken_again():
    said = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True).stdout
    assert int(said) < 200


def test_the_memory_of_a_token():
    vocabulary = vocabulary_of(random_catalog(5, (2, 2, 2)))
    model = small_llama(vocabulary)  # 2 layers, 1 key-value head of width 16
    assert bytes_per_token(model) == 2 * 2 * 1 * 16 * 4
    assert bytes_per_token(model.bfloat16()) == 2 * 2 * 1 * 16 * 2


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_memory_of_a_token_is_that_of_what_a_cache_would_hold(kind):
    make_config, make_model = KINDS[kind]
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = make_model(make_config(vocab_size=9, head_dim=10, intermediate_size=8, **sizes))
    cache = model(torch.arange(7)[None], use_cache=True).past_key_values
    held = sum(side.nbytes for layer in cache.layers for side in (layer.keys, layer.values))
    assert bytes_per_token(model) * 7 == held


def test_free_memory_is_that_of_the_device(monkeypatch):
    assert 0 < free_memory(torch.device("cpu")) < 2**50
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    assert free_memory(torch.device("cuda", 0)) == 123
