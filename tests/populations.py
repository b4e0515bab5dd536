"""Blocks of many users, and prompts of all kinds: what the tests of sequences, layouts and packing draw from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from worlds import COMPACT, INSTRUCT, block_of, random_catalog, vocabulary_of

from peso_cli.backbones.prompts import render
from peso_cli.config.schema import PromptTemplate
from peso_cli.data.blocks import Block

CATALOG = random_catalog(30, (3, 4, 5))
TEMPLATES = {
    template.name: template
    for template in (
        COMPACT,
        INSTRUCT,
        PromptTemplate("listed", "{bos}Picked: ", "{sid}; ", "", 5),
        PromptTemplate("asked", "{bos}", "{sid}", " Next: ", 5),
    )
}
"""A prompt that chains, one with text everywhere, one without a tail, and one without text around items."""
PROMPTS = {name: render(t, vocabulary_of(CATALOG, t), CATALOG) for name, t in TEMPLATES.items()}

_events = st.lists(st.integers(0, 29), max_size=9)
populations = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(_events, _events), max_size=6)
names = st.sampled_from(sorted(PROMPTS))


def random_block(users: int, seed: int = 0, events: int = 12, stage: int = 2, items: int = 30) -> Block:
    """Users of whom many have more events than the window."""
    rng = np.random.default_rng(seed)
    return block_of(
        {
            f"u{n}": (rng.integers(0, items, rng.integers(0, 6)).tolist(), rng.integers(0, items, size).tolist())
            for n, size in enumerate(rng.integers(1, events, users))
        },
        stage,
    )
