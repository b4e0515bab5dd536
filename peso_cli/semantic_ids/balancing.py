"""Encoding the last code of items that share once more, balanced over the codes, as LC-Rec resolves conflicts.

Zheng et al., "Adapting Large Language Models by Integrating Collaborative Semantics for Recommendation",
arXiv 2311.09049, section 3: the last level of items that share is quantized by optimal transport, so that each code is
used alike. There the items of one semantic ID are a group; here those of a prefix are, so that groups don't run into
each other.
"""

from __future__ import annotations

import numpy as np

from peso_cli.semantic_ids.parts import Codebooks, Codes, Floats
from peso_cli.semantic_ids.sharing import Numbers, contested
from peso_cli.semantic_ids.units import Costs, units_of

_ROUNDS = 20
_ITERATIONS = 50
_TEMPERATURE = 0.003
"""Of the transport, with distances scaled to [-1, 1]: as in LC-Rec's code."""


def balance(
    codebooks: Codebooks, embeddings: Floats, rows: Numbers, codes: Codes, kinds: Numbers, taken: Codes
) -> Codes:
    """Encode the last codes of items that share until none do, at most 20 times; what still shares is left so.

    Args:
        codebooks: what the codes belong to.
        embeddings: (all items, width).
        rows: (items,) which of them get semantic IDs.
        codes: (items, levels) their codes.
        kinds: (items,) the same number for items that are alike; 0 or more.
        taken: (others, levels) semantic IDs that are none of theirs to have.
    """
    codes = codes.copy()
    kinds_of_all = np.concatenate([np.full(len(taken), -1), kinds])
    for _ in range(_ROUNDS):
        clash = np.flatnonzero(contested(np.concatenate([taken, codes]), kinds_of_all)[len(taken) :])
        if not len(clash):
            break
        units = units_of(codebooks, embeddings, rows[clash], codes[clash], kinds[clash])
        last = units.codes[:, -1].copy()
        for group, used in units.by_prefix(taken):
            free = np.setdiff1d(np.arange(len(codebooks.centers[-1])), used)
            if len(free):
                last[group] = free[
                    balanced(units.errors(group, codebooks.centers[-1][free]) / units.sizes[group, None])
                ]
        if np.array_equal(last, units.codes[:, -1]):
            break  # nor would a further round change anything
        codes[clash, -1] = last[units.of]
    return codes


def balanced(distances: Costs) -> Numbers:
    """Return (items,) the most likely code of each item in a transport that uses each code alike (Sinkhorn).

    Args:
        distances: (items, codes) squared distances. A single item gets the nearest code, for it can't be balanced.
    """
    if len(distances) == 1:
        return np.array([distances.argmin()])
    middle = (distances.max() + distances.min()) / 2
    scaled = (distances - middle) / (distances.max() - middle or 1.0)
    # Whatever is the same for all codes of an item leaves its share of the transport as it is.
    plan = np.exp((scaled.min(axis=1, keepdims=True) - scaled) / _TEMPERATURE)
    for _ in range(_ITERATIONS):
        plan /= plan.sum(axis=0) * plan.shape[1]
        plan /= plan.sum(axis=1, keepdims=True) * plan.shape[0]
    likeliest: Numbers = plan.argmax(axis=1)
    return likeliest
