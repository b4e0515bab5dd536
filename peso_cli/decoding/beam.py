"""Constrained beam search: every prompt read once, every beam's codes side by side under an ancestor mask.

Scores are those of a plain beam search: the log-probabilities of the codes and of the end token, taken over the whole
vocabulary in float32 before the constraint, averaged over the generated tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from peso_cli.backbones.attention import Attend, decoder_states
from peso_cli.backbones.llama import is_llama, llama_states
from peso_cli.backbones.products import filled_up
from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.decoding.constraints import Children, Constraint
from peso_cli.decoding.scoring import Normalise, Scorer
from peso_cli.decoding.states import Part, Prefix, Prompts, Run, bytes_per_token, free_memory, keep_freed_memory

Tokens = NDArray[np.int64]

_TOKENS_AT_ONCE = {"cpu": 2560, "cuda": 32768}
"""Tokens that go through the backbone together: on a CPU, as many as its cache holds the activations of."""

_PATIENCE = 2
"""After so many rounds a search asks for the mass of the words of all its beams."""


@dataclass(frozen=True, eq=False)
class Beams:
    """The state of a search after some levels, W beams for each of B prompts, in ascending order of their nodes.

    Attributes:
        nodes: (B, W) where in the constraint each beam stands.
        scores: (B, W) sum of log-probabilities so far.
        codes: (B, W, level) the codes chosen so far.
        sees: (B, W, slots) which of the slots behind the prompt (one per earlier beam) are a beam's own ancestors.
    """

    nodes: Tensor
    scores: Tensor
    codes: Tensor
    sees: Tensor

    def grown(self, parent: Tensor, code: Tensor, nodes: Tensor, scores: Tensor) -> Beams:
        """Return (B, K) beams that go on from those at the places `parent`, each by one code."""
        codes = torch.cat([_rows(self.codes, parent), code[..., None]], dim=-1)
        return Beams(nodes, scores, codes, _rows(self.sees, parent))


Advance = Callable[[Beams, Tensor, int], Beams]
"""From the beams of a level and their (B, W, hidden) states to the beams of the next one."""


@dataclass(frozen=True, eq=False)
class Found:
    """The best sequences of each prompt, best first; equal scores are in ascending order of their codes.

    Attributes:
        codes: (B, K, levels) the codes.
        scores: (B, K) mean log-probability over codes and end token.
        nodes: (B, K) final nodes of the constraint.
    """

    codes: Tensor
    scores: Tensor
    nodes: Tensor


class BeamSearch:
    """A search set up for one model, vocabulary and constraint."""

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        constraint: Constraint,
        beams: int,
        normalise: Normalise = "vocabulary",
        prefix: Tokens | None = None,
    ) -> None:
        """Set the search up; `prefix` are the tokens that every prompt begins with, read once and not given again."""
        model.eval()  # type: ignore[no-untyped-call]
        self.model, self.constraint, self.beams = model, constraint, beams
        keep_freed_memory()
        self._decoder_states = llama_states if is_llama(model) else decoder_states
        self.scorer = Scorer(model.get_output_embeddings(), vocabulary, normalise)  # type: ignore[no-untyped-call]
        self.vocabulary = vocabulary
        self._prefix = self._read_prefix(prefix) if prefix is not None and len(prefix) else Prefix()

    @property
    def tokens(self) -> int:
        """Over how many tokens scores are averaged: the codes and the end token."""
        return self.constraint.levels + 1

    @property
    def room(self) -> int:
        """How many codes of beams each prompt needs room for."""
        return self.beams * self.constraint.levels

    @property
    def prompts_at_once(self) -> int:
        """How many prompts' beams fill what the device likes to have at once, and products as they like it."""
        most = max(1, _TOKENS_AT_ONCE[self.model.device.type] // self.beams)
        return next((n for n in range(most, most // 2, -1) if filled_up(n * self.beams) == n * self.beams), most)

    @property
    def widest(self) -> int:
        """How many beams of one prompt the device likes to have at once."""
        return _TOKENS_AT_ONCE[self.model.device.type]

    def tokens_in_memory(self) -> int:
        """Return how many tokens' keys and values half of the free memory holds."""
        return free_memory(self.model.device) // (2 * bytes_per_token(self.model))

    def as_wide(self, beams: int) -> BeamSearch:
        """Return the same search with another width of its beam."""
        other = copy.copy(self)
        other.beams = beams
        return other

    @torch.inference_mode()
    def run(self, prompts: Sequence[Tokens]) -> Found:
        """Search for all prompts (the token ids of each behind the prefix, at least one) at once, side by side."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        beams, scores = self.walk([prompts[i] for i in order], self._advance)
        return self._sorted(beams, scores, self._tensor(np.argsort(order)))

    @torch.inference_mode()
    def walk(self, prompts: Sequence[Tokens], advance: Advance) -> tuple[Beams, Tensor]:
        """Read prompts, in ascending order of their lengths, and beams behind them as `advance` chooses them.

        Returns:
            The beams of the last level, and the (B, W) sums of the log-probabilities of their tokens.
        """
        runs = [Run(len(list(same)), length) for length, same in groupby(map(len, prompts))]
        states = Prompts(self._prefix, runs, self.room)
        lengths = self._tensor(np.array([len(self._prefix) + len(p) for p in prompts]))
        last = self._read_prompts(prompts, states)[:, None]
        beams = self._root(len(prompts))
        for level in range(self.constraint.levels):
            beams = advance(beams, last, level)
            if level + 1 < self.constraint.levels or self.scorer.normalise != "level":
                beams, last = self._read_codes(beams, level, lengths, states)
        return beams, self._ended(beams, last)

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.model.device)

    def _states(self, tokens: Tensor, positions: Tensor, attend: Attend, read: Tensor | None = None) -> Tensor:
        """Return the hidden states of tokens in one row, at the places that are read (None: all)."""
        return self._decoder_states(self.model, tokens.reshape(1, -1), positions.reshape(1, -1), attend, read)

    @torch.inference_mode()
    def _read_prefix(self, tokens: Tokens) -> Prefix:
        prefix = Prefix()
        self._states(self._tensor(tokens), self._tensor(np.arange(len(tokens))), prefix)
        return prefix

    def _read_prompts(self, prompts: Sequence[Tokens], states: Prompts) -> Tensor:
        """Read prompts in ascending order of their lengths; return (B, hidden) the state of each one's last token."""
        found, begin = [], 0
        for parts in self._portions(states.runs):
            lengths = [states.runs[part.run].length for part in parts for _ in range(part.count)]
            tokens = self._tensor(np.concatenate(prompts[begin : begin + len(lengths)]))
            positions = self._tensor(np.concatenate([len(self._prefix) + np.arange(length) for length in lengths]))
            ends = self._tensor(np.cumsum(lengths) - 1)
            found.append(self._states(tokens, positions, states.reading(parts), ends))
            begin += len(lengths)
        return torch.cat(found)

    def _portions(self, runs: Sequence[Run]) -> Iterator[list[Part]]:
        """Yield which prompts to read together: as many as the device likes at once, at least one."""
        most = _TOKENS_AT_ONCE[self.model.device.type]
        parts: list[Part] = []
        room = most
        for number, run in enumerate(runs):
            start = 0
            while start < run.count:
                if parts and room < run.length:
                    yield parts
                    parts, room = [], most
                part = Part(number, start, min(run.count - start, max(1, room // run.length)))
                parts.append(part)
                start, room = start + part.count, room - part.count * run.length
        yield parts

    def _root(self, prompts: int) -> Beams:
        nodes = torch.zeros(prompts, 1, dtype=torch.long, device=self.model.device)
        empty = nodes.new_zeros(prompts, 1, 0)
        return Beams(nodes, torch.zeros(prompts, 1, device=nodes.device), empty, empty.bool())

    def _advance(self, beams: Beams, hidden: Tensor, level: int) -> Beams:
        """Keep the best continuations of (B, W, hidden) states, in ascending order of their nodes."""
        children = self.constraint.children(level, beams.nodes)
        scores, kept = self._best(beams, hidden, children, level)
        parent = kept // children.codes.shape[-1]
        code, nodes = (each.flatten(1).gather(1, kept) for each in (children.codes, children.nodes))
        return beams.grown(parent, code, nodes, scores)

    def _best(self, beams: Beams, hidden: Tensor, children: Children, level: int) -> tuple[Tensor, Tensor]:
        """Return the scores and the (B, K) flat places of the best continuations.

        The mass of the words is worked out only for beams with a continuation among the best. Without it a score is too
        high; once all beams among the best have theirs, no other beam could still get in.
        """
        logits, mass = self.scorer.codes(hidden, level)
        gains = logits.gather(-1, children.codes).masked_fill(~children.exists, -torch.inf)
        width = min(self.beams, int(children.exists.flatten(1).sum(1).min()))
        known = torch.full_like(mass, not self.scorer.lazy, dtype=torch.bool)
        turns = 0
        while True:
            scores = ((beams.scores - mass)[..., None] + gains).flatten(1)
            kept = _highest(scores, width)
            among = torch.zeros_like(known).scatter_(1, kept // gains.shape[-1], True)
            if (among <= known).all():
                return scores.gather(1, kept), kept
            # Where words weigh so much that every answer raises new questions, all of them are asked at once.
            turns += 1
            missing = ~known if turns > _PATIENCE else among & ~known
            mass[missing] = self.scorer.log_mass(hidden[missing], mass[missing])
            known |= missing

    def _read_codes(self, beams: Beams, level: int, lengths: Tensor, states: Prompts) -> tuple[Beams, Tensor]:
        """Run every beam's newest code through the model; each sees its prompt, its ancestors and itself."""
        prompts, width = beams.nodes.shape
        itself = torch.eye(width, dtype=torch.bool, device=lengths.device).expand(prompts, -1, -1)
        sees = torch.cat([beams.sees, itself], dim=-1)
        tokens = beams.codes[..., -1] + int(self.vocabulary.first_code[level])
        positions = (lengths + level)[:, None].expand(-1, width)
        hidden = self._states(tokens, positions, states.codes(beams.sees.shape[-1], sees))
        return Beams(beams.nodes, beams.scores, beams.codes, sees), hidden.view(prompts, width, -1)

    def _ended(self, beams: Beams, last: Tensor) -> Tensor:
        """Return the (B, W) scores with the end token's log-probability."""
        if self.scorer.normalise == "level":
            return beams.scores
        return beams.scores + self.scorer.end_log_probability(last.flatten(0, 1)).view_as(beams.scores)

    def _sorted(self, beams: Beams, scores: Tensor, back: Tensor) -> Found:
        """Sort the beams of each prompt, and bring the prompts back into the order in which they came."""
        order = scores.sort(dim=1, descending=True, stable=True).indices
        scores = scores.gather(1, order) / self.tokens
        return Found(_rows(beams.codes, order)[back], scores[back], beams.nodes.gather(1, order)[back])


def _highest(scores: Tensor, count: int) -> Tensor:
    """Return (B, count) ascending places of the highest of (B, n) scores; among equal ones the first."""
    best = scores.topk(count, dim=1)
    if ((scores >= best.values[:, -1:]).sum(1) > count).any():
        best_places = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
        return best_places.sort(dim=1).values
    return best.indices.sort(dim=1).values


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Pick rows of dimension 1: (B, W, n) and (B, K) give (B, K, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
