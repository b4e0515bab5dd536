"""What recommendations owe to each item of a history: their exact scores when it is left out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from peso_cli.backbones.prompts import Prompt
from peso_cli.decoding.scoring import Scorer
from peso_cli.decoding.token_tree import token_tree
from peso_cli.semantic_ids.catalog import Catalog

_HISTORIES, _CANDIDATES = 24, 16
"""How many go through the backbone together, so that the mask of who sees whom stays small."""


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Scores of candidates by a history, whole and without each of its items.

    Attributes:
        whole: (C,) scores by the whole history.
        without: (items, C) scores when one item is left out, the others moving up.
        tokens: how many tokens were read.
        alone: how many there would have been, had every history been read by itself for every candidate.
    """

    whole: NDArray[np.float64]
    without: NDArray[np.float64]
    tokens: int = 0
    alone: int = 0

    @property
    def contributions(self) -> NDArray[np.float64]:
        """(items, C) how far each score falls without the item; below 0 where the item spoke against it."""
        return self.whole - self.without

    def strongest(self, candidate: int, count: int) -> list[tuple[int, float]]:
        """Return the places of the items that move a candidate's score most, and what they add.

        Args:
            candidate: its column.
            count: how many at most.
        """
        column = self.contributions[:, candidate]
        order = len(column) - 1 - np.argsort(-np.abs(column[::-1]), kind="stable")[:count]
        return [(place, float(column[place])) for place in order.tolist()]


def shortened(history: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Return a history, and it without each of its items in turn."""
    return [history, *(np.delete(history, place) for place in range(len(history)))]


def leave_one_out(
    model: PreTrainedModel,
    scorer: Scorer,
    prompt: Prompt,
    catalog: Catalog,
    history: NDArray[np.int32],
    candidates: NDArray[np.int64],
) -> LeftOut:
    """Return the log-likelihoods of semantic IDs by a history, whole and without each of its items.

    Histories with candidates are one tree of tokens, read in one pass: what they begin with in common (of a history
    without its last item all but that) is read once. Only where they are many, there are several trees.

    Args:
        model: a causal LM.
        scorer: its head and vocabulary.
        prompt: renders histories and answers.
        catalog: the items.
        history: catalog indices, oldest first.
        candidates: (C,) catalog indices.
    """
    prompts = [prompt.tokens(each) for each in shortened(history)]
    scores, tokens = np.zeros((len(prompts), len(candidates))), 0
    for rows, columns in product(_portions(len(prompts), _HISTORIES), _portions(len(candidates), _CANDIDATES)):
        part = candidates[columns]
        scores[rows, columns], read = _scores(model, scorer, prompts[rows], prompt.answers[part], catalog.codes[part])
        tokens += read
    alone = len(candidates) * sum(len(each) + prompt.answers.shape[1] for each in prompts)
    return LeftOut(scores[0], scores[1:], tokens, alone)


def _portions(count: int, most: int) -> list[slice]:
    return [slice(start, start + most) for start in range(0, count, most)]


@torch.inference_mode()
def _scores(
    model: PreTrainedModel,
    scorer: Scorer,
    prompts: list[NDArray[np.int64]],
    answers: NDArray[np.int64],
    codes: NDArray[np.int32],
) -> tuple[NDArray[np.float64], int]:
    """Return (prompts, C) log-likelihoods of answers, and how many tokens were read."""
    tree = token_tree([np.concatenate([each, answer]) for each in prompts for answer in answers])
    ends = np.repeat([len(each) for each in prompts], len(answers))[:, None]
    steps = np.arange(answers.shape[1] + 1)
    read = np.take_along_axis(tree.places, ends - 1 + steps, axis=1)
    states = tree.states(model, read.reshape(-1)).view(*read.shape, -1)
    chosen = torch.from_numpy(np.tile(codes, (len(prompts), 1)).astype(np.int64)).to(states.device)
    found = log_likelihoods(scorer, states, chosen)
    return found.double().cpu().numpy().reshape(len(prompts), -1), len(tree)


def log_likelihoods(scorer: Scorer, states: Tensor, codes: Tensor) -> Tensor:
    """Return (n,) log-likelihoods of semantic IDs with their end tokens, as the search adds them up.

    Args:
        scorer: the head and the vocabulary; with `normalise=level` the end token is left out.
        states: (n, levels + 1, hidden) states that predict each code and the end token.
        codes: (n, levels) the codes.
    """
    total = states.new_zeros(len(states), dtype=torch.float32)
    for level in range(codes.shape[1]):
        logits, mass = scorer.codes(states[:, level], level)
        if scorer.lazy:
            mass = scorer.log_mass(states[:, level], mass)
        total += logits.gather(1, codes[:, level, None])[:, 0] - mass
    return total if scorer.normalise == "level" else total + scorer.end_log_probability(states[:, -1])
