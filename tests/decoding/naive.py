"""A beam search in the plainest words, and the small world that searches are held against it in."""

import numpy as np
import torch
from worlds import random_catalog, vocabulary_of

from peso_cli.decoding import beam
from peso_cli.decoding.beam import BeamSearch
from peso_cli.decoding.constraints import PositionalConstraint, TrieConstraint

CONSTRAINTS = {"trie": TrieConstraint, "positional": PositionalConstraint}
CPU = torch.device("cpu")
CATALOG = random_catalog(25, (3, 4, 5))
VOCABULARY = vocabulary_of(CATALOG)


def search(model, beams, constraint="trie", catalog=CATALOG, vocabulary=VOCABULARY, **options):
    return BeamSearch(model, vocabulary, CONSTRAINTS[constraint](catalog, CPU), beams, **options)


def random_prompts(count, longest=12, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY.size, size).astype(np.int64) for size in rng.integers(1, longest, count)]


def continuations(constraint, level, before):
    """The codes that may follow some codes, written as the rule reads."""
    if constraint == "positional":
        return range(CATALOG.level_sizes[level])
    return sorted({int(sid[level]) for sid in CATALOG.sids if tuple(sid[:level]) == before})


@torch.no_grad()
def log_probabilities(model, prompt, codes, normalise, vocabulary=VOCABULARY):
    """What may be the next token after a prompt and some codes: one plain forward, no cache, no padding."""
    tokens = [*prompt, *(vocabulary.first_code[level] + code for level, code in enumerate(codes))]
    logits = model(torch.tensor([tokens])).logits[0, -1].float()
    if normalise == "level" and len(codes) < CATALOG.levels:
        first = vocabulary.first_code[len(codes)]
        return logits[first : first + CATALOG.level_sizes[len(codes)]].log_softmax(-1)
    chosen = vocabulary.end if len(codes) == CATALOG.levels else vocabulary.first_code[len(codes)]
    return logits.log_softmax(-1)[int(chosen) :]


def naive(model, prompt, beams, constraint="trie", normalise="vocabulary", vocabulary=VOCABULARY):
    """A beam search in the plainest words: (codes, score) of the best, best first."""
    alive = [((), 0.0)]
    for level in range(CATALOG.levels):
        grown = []
        for codes, score in alive:
            log_p = log_probabilities(model, prompt, codes, normalise, vocabulary)
            grown += [((*codes, c), score + log_p[c].item()) for c in continuations(constraint, level, codes)]
        alive = sorted(grown, key=lambda pair: -pair[1])[:beams]
    if normalise == "vocabulary":
        ends = [log_probabilities(model, prompt, codes, normalise, vocabulary)[0].item() for codes, _ in alive]
        alive = [(codes, score + end) for (codes, score), end in zip(alive, ends, strict=True)]
    return [(codes, score / (CATALOG.levels + 1)) for codes, score in sorted(alive, key=lambda pair: -pair[1])]


def prompts_of(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY.size, length) for length in lengths]


def tokens_read(monkeypatch):
    """How many tokens go through the backbone, pass by pass, of the searches that are made from now on."""
    seen = []

    def spy(name):
        plain = getattr(beam, name)
        monkeypatch.setattr(
            beam, name, lambda model, tokens, *more: seen.append(tokens.numel()) or plain(model, tokens, *more)
        )

    spy("decoder_states")
    spy("llama_states")
    return seen
