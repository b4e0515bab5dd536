"""Constrained beam search: one prefill per prompt, every beam's codes side by side under an ancestor mask.

Scores are those of a plain beam search: the log-probabilities of the codes and of the end token, taken over the whole
vocabulary in float32 before the constraint, averaged over the generated tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from peso_cli.backbones.vocabulary import Vocabulary
from peso_cli.decoding.constraints import Constraint

Normalise = Literal["vocabulary", "level"]


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
    ) -> None:
        model.eval()  # type: ignore[no-untyped-call]
        self.model, self.vocabulary, self.constraint = model, vocabulary, constraint
        self.beams, self.normalise = beams, normalise

    @torch.inference_mode()
    def run(self, prompts: list[NDArray[np.int64]]) -> Found:
        """Search for all prompts (token ids each) at once, side by side in one padded batch."""
        tokens, lengths = self._pad(prompts)
        cache = DynamicCache()
        hidden = self._forward(tokens, cache, None, None)
        last = hidden[torch.arange(len(lengths), device=lengths.device), lengths - 1][:, None]
        beams = self._root(len(prompts), lengths.device)
        for level in range(self.constraint.levels):
            beams = self._advance(beams, self._log_probabilities(last, level), level)
            if level + 1 < self.constraint.levels or self.normalise == "vocabulary":
                beams, last = self._read_codes(beams, level, lengths, tokens.shape[1], cache)
        return self._finish(beams, last)

    def _pad(self, prompts: list[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(p) for p in prompts], device=self.model.device)
        tokens = np.full((len(prompts), max(map(len, prompts))), self.vocabulary.pad, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
        return torch.from_numpy(tokens).to(self.model.device), lengths

    def _forward(self, tokens: Tensor, cache: DynamicCache, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        decoder = self.model.get_decoder()  # type: ignore[no-untyped-call]
        output = decoder(
            input_ids=tokens, past_key_values=cache, position_ids=positions, attention_mask=mask, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _additive(self, sees: Tensor) -> Tensor:
        """Return a mask to be added to attention scores: the one form that every attention implementation takes."""
        zeros = torch.zeros(sees.shape, dtype=self.model.dtype, device=sees.device)
        return zeros.masked_fill(~sees, torch.finfo(self.model.dtype).min)

    def _root(self, prompts: int, device: torch.device) -> Beams:
        nodes = torch.zeros(prompts, 1, dtype=torch.long, device=device)
        empty = nodes.new_zeros(prompts, 1, 0)
        return Beams(nodes, torch.zeros(prompts, 1, device=device), empty, empty.bool())

    def _logits(self, hidden: Tensor) -> Tensor:
        head: nn.Module = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        logits: Tensor = head(hidden)
        return logits.float()

    def _log_probabilities(self, hidden: Tensor, level: int) -> Tensor:
        """Return (B, W, codes of the level) log-probabilities from the hidden states that predict them."""
        logits = self._logits(hidden)
        first = int(self.vocabulary.first_code[level])
        own = logits[..., first : first + self.vocabulary.level_sizes[level]]
        if self.normalise == "level":
            return own.log_softmax(-1)
        return own - logits.logsumexp(-1, keepdim=True)

    def _advance(self, beams: Beams, log_p: Tensor, level: int) -> Beams:
        """Keep the best continuations; a stable sort over ascending candidates breaks ties by the lower code."""
        children = self.constraint.children(level, beams.nodes)
        scores = beams.scores[..., None] + log_p.gather(-1, children.codes)
        scores = scores.masked_fill(~children.exists, -torch.inf).flatten(1)
        width = min(self.beams, int(children.exists.flatten(1).sum(1).min()))
        kept = scores.sort(dim=1, descending=True, stable=True).indices[:, :width].sort(dim=1).values
        parent = kept // children.codes.shape[-1]
        code = children.codes.flatten(1).gather(1, kept)
        codes = _rows(beams.codes, parent)
        return Beams(
            nodes=children.nodes.flatten(1).gather(1, kept),
            scores=scores.gather(1, kept),
            codes=torch.cat([codes, code[..., None]], dim=-1),
            sees=_rows(beams.sees, parent),
        )

    def _read_codes(
        self, beams: Beams, level: int, lengths: Tensor, prompt_slots: int, cache: DynamicCache
    ) -> tuple[Beams, Tensor]:
        """Run every beam's newest code through the model; each sees its prompt, its ancestors and itself."""
        count, width = beams.nodes.shape
        itself = torch.eye(width, dtype=torch.bool, device=lengths.device).expand(count, -1, -1)
        sees = torch.cat([beams.sees, itself], dim=-1)
        prompt = torch.arange(prompt_slots, device=lengths.device) < lengths[:, None]
        mask = self._additive(torch.cat([prompt[:, None].expand(-1, width, -1), sees], dim=-1)[:, None])
        tokens = beams.codes[..., -1] + int(self.vocabulary.first_code[level])
        positions = (lengths + level)[:, None].expand(-1, width)
        hidden = self._forward(tokens, cache, positions, mask)
        return Beams(beams.nodes, beams.scores, beams.codes, sees), hidden

    def _finish(self, beams: Beams, last: Tensor) -> Found:
        scores = beams.scores
        if self.normalise == "vocabulary":
            logits = self._logits(last)
            scores = scores + logits[..., self.vocabulary.end] - logits.logsumexp(-1)
        order = scores.sort(dim=1, descending=True, stable=True).indices
        scores = scores.gather(1, order) / (self.constraint.levels + 1)
        return Found(_rows(beams.codes, order), scores, beams.nodes.gather(1, order))


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Pick rows of dimension 1: (B, W, n) and (B, K) give (B, K, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
